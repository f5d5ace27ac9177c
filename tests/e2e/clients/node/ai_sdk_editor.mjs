// Vercel AI SDK with its providers for OpenAI (the Responses API) and Anthropic: edits a file, streamed or not.
import { createAnthropic } from "@ai-sdk/anthropic";
import { createOpenAI } from "@ai-sdk/openai";
import { generateText, stepCountIs, streamText, tool } from "ai";
import { readFileSync, writeFileSync } from "node:fs";
import { z } from "zod";

globalThis.AI_SDK_LOG_WARNINGS = false;
const [baseURL, prompt, note] = process.argv.slice(2);
const settings = { baseURL, apiKey: "EMPTY" };
const models = { openai: createOpenAI(settings)("m"), anthropic: createAnthropic(settings)("m") };
const tools = {
  read_file: tool({
    description: "Read a file.",
    inputSchema: z.object({ path: z.string() }),
    execute: async ({ path }) => readFileSync(path, "utf8"),
  }),
  edit_file: tool({
    description: "Replace text in a file.",
    inputSchema: z.object({ path: z.string(), old: z.string(), new: z.string() }),
    execute: async (edit) => {
      writeFileSync(edit.path, readFileSync(edit.path, "utf8").replace(edit.old, edit.new));
      return `${edit.path} has been edited.`;
    },
  }),
};
const before = readFileSync(note, "utf8");
const found = {};
for (const [name, model] of Object.entries(models)) {
  const options = { model, tools, prompt, stopWhen: stepCountIs(4), maxOutputTokens: 500, maxRetries: 0 };
  writeFileSync(note, before);
  const whole = await generateText(options);
  writeFileSync(note, before);
  const stream = streamText(options);
  await stream.consumeStream();
  found[name] = { whole: whole.text, streamed: await stream.text };
}
console.log(JSON.stringify(found));
