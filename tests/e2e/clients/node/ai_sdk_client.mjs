// Vercel AI SDK with its provider for compatible servers.
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateObject, generateText, stepCountIs, streamText, tool } from "ai";
import { z } from "zod";
import { CAPITAL, QUESTION, RESULT, orderOf } from "./orders.mjs";

const provider = createOpenAICompatible({
  name: "furiosa-llm",
  baseURL: process.argv[2],
  supportsStructuredOutputs: true,
});
const options = { model: provider("m"), temperature: 0, maxOutputTokens: 200, maxRetries: 0 };
const calls = [];
const placeOrder = tool({
  description: "Order cups.",
  inputSchema: orderOf(z),
  execute: async (order) => {
    calls.push(order);
    return RESULT;
  },
});
const answer = await generateText({
  ...options,
  prompt: QUESTION,
  tools: { placeOrder },
  stopWhen: stepCountIs(2),
  prepareStep: ({ stepNumber }) => ({ toolChoice: stepNumber === 0 ? "required" : "auto" }),
});
const { object } = await generateObject({ ...options, prompt: QUESTION, schema: orderOf(z) });
const pieces = [];
for await (const piece of streamText({ ...options, prompt: CAPITAL }).textStream) pieces.push(piece);
console.log(JSON.stringify({ "openai-compatible": { call: calls[0], answer: answer.text, object, pieces } }));
