import type { HubOptions } from "hub-client/react";
import { StrictMode } from "react";
import { hydrateRoot } from "react-dom/client";
import { App } from "./App";

const asked = new URLSearchParams(location.search);
const hub: HubOptions = {
  url: asked.get("hub") ?? "/",
  token: () => asked.get("as") ?? "",
};
hydrateRoot(
  document.querySelector("#app")!,
  <StrictMode>
    <App hub={hub} />
  </StrictMode>,
);
