/** What the server says of itself: models, defaults, whether it wants a key. */
(() => {
  "use strict";
  const { signal, api } = fllm;

  /** What `page/server` answers, or null. */
  const server = signal(null);
  /** Why it is null: an ApiError. */
  const unreachable = signal(null);

  /** Ask the server. */
  async function load() {
    try {
      server.value = await api.json("page/server");
      unreachable.value = null;
    } catch (error) {
      unreachable.value = error;
    }
  }

  /** Return the model that options name, if the server has it, or its first one. */
  function modelOf(options) {
    const names = (server.value?.models ?? []).map((each) => each.name);
    return names.includes(options.model) ? options.model : (names[0] ?? options.model ?? "");
  }

  /** Return what a model can take: {images, tools, reasoning}, or null if that is not known. */
  function capabilitiesOf(options) {
    const name = modelOf(options);
    return server.value?.models?.find((each) => each.name === name)?.capabilities ?? null;
  }

  Object.assign(fllm, { server, unreachable, loadServer: load, modelOf, capabilitiesOf });
})();
