import { createSSRApp } from "vue";
import App from "./App.vue";

const asked = new URLSearchParams(location.search);
const hub = { url: asked.get("hub") ?? "/", token: () => asked.get("as") ?? "" };
createSSRApp(App, { hub }).mount("#app");
