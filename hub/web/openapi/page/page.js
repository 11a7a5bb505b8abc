"use strict";

// Swagger UI sets markup that DOMPurify has made harmless, but as a plain string. With this policy it may; texts that
// would become scripts, or addresses of scripts, are refused as before.
if (window.trustedTypes) trustedTypes.createPolicy("default", { createHTML: (markup) => markup });

// Swagger UI has a dark mode, but does not ask the browser whether it is wanted.
const dark = matchMedia("(prefers-color-scheme: dark)");
const follow = () => document.documentElement.classList.toggle("dark-mode", dark.matches);
dark.addEventListener("change", follow);
follow();

// The items of a stream (`itemSchema`, OpenAPI 3.2) are not shown by Swagger UI yet: it gets them as a list, and the example on the wire as one. And its "Try
// it out" waits for the end of an answer, which a stream does not have.
const STREAM = "text/event-stream";
const streams = new Set();

function shown(description) {
  for (const [path, methods] of Object.entries(description.paths)) {
    for (const [method, operation] of Object.entries(methods)) {
      for (const { content = {} } of Object.values(operation.responses)) {
        if (STREAM in content) streams.add(`${method} ${path}`);
        for (const media of Object.values(content)) asList(media);
      }
    }
  }
  return description;
}

function asList(media) {
  if (media.itemSchema) media.schema ??= { type: "array", items: media.itemSchema };
  for (const { value, serializedValue } of Object.values(media.examples ?? {})) media.example = value ?? serializedValue;
  delete media.examples;
}

const plugin = () => ({
  statePlugins: {
    spec: {
      wrapActions: { updateJsonSpec: (update) => (description) => update(shown(description)) },
      wrapSelectors: { allowTryItOutFor: () => (state, path, method) => !streams.has(`${method} ${path}`) },
    },
  },
});

SwaggerUIBundle({
  url: "../openapi.json",
  dom_id: "#api",
  deepLinking: true,
  defaultModelsExpandDepth: 0,
  validatorUrl: null,
  plugins: [plugin],
});
