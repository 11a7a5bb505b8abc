/** The cursor of a tab, kept through a reload: in `sessionStorage`, which no other tab reads. */

export class Stored {
  readonly #on: boolean;
  #key = "";
  #last: string | undefined;

  constructor(on: boolean) {
    this.#on = on;
  }

  /** Find what was kept for this hub, this user and these topics. */
  begin(url: string, user: string, topics: string[]): void {
    this.#key = `hub-client ${JSON.stringify([url, user, [...topics].sort()])}`;
    this.#last = this.#ask((storage) => storage.getItem(this.#key) ?? undefined);
  }

  get cursor(): string | undefined {
    return this.#last;
  }

  save(cursor: string): void {
    if (cursor === this.#last || !this.#key) return;
    this.#last = cursor;
    this.#ask((storage) => storage.setItem(this.#key, cursor));
  }

  forget(): void {
    this.#last = undefined;
    this.#ask((storage) => storage.removeItem(this.#key));
  }

  /** A page may have no storage, or a full one: then a reload begins with what is new. */
  #ask<T>(what: (storage: Storage) => T): T | undefined {
    if (!this.#on) return undefined;
    try {
      return what(sessionStorage);
    } catch {
      return undefined;
    }
  }
}
