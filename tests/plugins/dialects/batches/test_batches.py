"""`/v1/batches` over ASGI."""

from __future__ import annotations

from pathlib import Path

from support.batch_server import BatchClient, a_batch_server, lines, run


def test_every_request_has_a_line_of_output(tmp_path: Path) -> None:
    async def work(client: BatchClient) -> None:
        batch = await client.create(lines("a", "b", "c"), metadata={"k": "v"})
        assert batch["object"] == "batch"
        assert (batch["status"], batch["errors"], batch["output_file_id"]) == ("validating", None, None)
        assert batch["expires_at"] == batch["created_at"] + 86400
        batch = await client.finish(batch["id"])
        assert batch["status"] == "completed"
        assert batch["request_counts"] == {"total": 3, "completed": 3, "failed": 0}
        assert batch["metadata"] == {"k": "v"}
        assert batch["error_file_id"] is None
        times = [batch[f"{name}_at"] for name in ("created", "in_progress", "finalizing", "completed")]
        assert times == sorted(times)
        assert [batch[f"{name}_at"] for name in ("failed", "expired", "cancelling", "cancelled")] == [
            None
        ] * 4
        output = await client.lines(batch["output_file_id"])
        assert sorted(output) == ["a", "b", "c"]
        line = output["b"]
        assert set(line) == {"id", "custom_id", "response", "error"}
        assert (line["error"], line["response"]["status_code"]) == (None, 200)
        message = line["response"]["body"]["choices"][0]["message"]
        assert message["content"] == "Hello world!"
        file = await client.get(f"/v1/files/{batch['output_file_id']}")
        assert (file["purpose"], file["filename"]) == ("batch_output", f"{batch['id']}_output.jsonl")

    run(a_batch_server(config={"data_dir": tmp_path}), work)
