/** The script of the SharedWorker. */

export {};
