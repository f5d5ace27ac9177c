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

  /** Return the names that a request can have for its model, with what the server says of each: models, adapters. */
  function choices() {
    const models = server.value?.models ?? [];
    return models.flatMap((model) => [model.name, ...(model.adapters ?? [])].map((name) => ({ name, model })));
  }

  /** Return the choice that options name, if the server has it, or its first one; undefined if it has none. */
  function choiceOf(options) {
    const found = choices();
    return found.find((each) => each.name === options.model) ?? found[0];
  }

  /** Return the name of the model that options choose. */
  function modelOf(options) {
    return choiceOf(options)?.name ?? options.model ?? "";
  }

  /** Return what the chosen model can take: {images, tools, reasoning}, or null if that is not known. */
  function capabilitiesOf(options) {
    return choiceOf(options)?.model.capabilities ?? null;
  }

  /** Return the server's default of a setting for the chosen model, or undefined. */
  function defaultOf(options, name) {
    return choiceOf(options)?.model.sampling_defaults?.[name] ?? server.value?.sampling_defaults?.[name];
  }

  Object.assign(fllm, { server, unreachable, loadServer: load, choices, modelOf, capabilitiesOf, defaultOf });
})();
