// OpenAI's client for Node, with the schemas of zod 4 and zod 3.
import OpenAI from "openai";
import { zodFunction, zodResponseFormat } from "openai/helpers/zod";
import { z as zod4 } from "zod";
import { z as zod3 } from "zod3";
import { CAPITAL, QUESTION, RESULT, orderOf } from "./orders.mjs";

const client = new OpenAI({ baseURL: process.argv[2], apiKey: "EMPTY", maxRetries: 0 });
const options = { model: "m", temperature: 0, max_tokens: 200 };
const messages = [{ role: "user", content: QUESTION }];

async function use(z) {
  const order = orderOf(z);
  const tools = [zodFunction({ name: "place_order", description: "Order cups.", parameters: order })];
  const forced = { tool_choice: "required", parallel_tool_calls: false };
  const { message } = (await client.chat.completions.parse({ ...options, messages, tools, ...forced })).choices[0];
  const [call] = message.tool_calls;
  const result = { role: "tool", tool_call_id: call.id, content: RESULT };
  const answer = await client.chat.completions.create({ ...options, messages: [...messages, message, result], tools });
  const format = zodResponseFormat(order, "order");
  const structured = await client.chat.completions.parse({ ...options, messages, response_format: format });
  const pieces = [];
  const stream = client.chat.completions.stream({ ...options, messages: [{ role: "user", content: CAPITAL }] });
  for await (const chunk of stream) pieces.push(chunk.choices[0]?.delta.content ?? "");
  return {
    call: call.function.parsed_arguments,
    answer: answer.choices[0].message.content,
    object: structured.choices[0].message.parsed,
    pieces,
  };
}

console.log(JSON.stringify({ "zod 4": await use(zod4), "zod 3": await use(zod3) }));
