// The objects that clients ask for: with integers, a UUID, and an object within the object.
export const orderOf = (z) =>
  z.object({
    id: z.string().uuid(),
    quantity: z.number().int().min(1).max(9),
    customer: z.object({ name: z.string().max(10), zip_code: z.number().int() }),
    size: z.enum(["small", "large"]),
  });

export const QUESTION = "Ann, zip code 75001, orders 3 small cups. The id is 123e4567-e89b-12d3-a456-426614174000.";
export const CAPITAL = "What is the capital of France?";
export const RESULT = "The order has been recorded.";
