"""A small OpenAI-compatible server on a folder that transformers saved: model_server.py FOLDER --port 8123.

On the processor, up to eight requests in one batch: enough to try operations that ask a model with a real one.
"""

import argparse
import json
import os
import queue
import threading
from concurrent.futures import Future
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

os.environ.update(HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false")
BATCH = 8


class Model:
    """A causal model with a chat template; one thread writes for all that ask, greedily or at their temperature."""

    def __init__(self, folder):
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self.torch = torch
        self.tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
        self.tokenizer.pad_token = self.tokenizer.eos_token
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        self.waiting = queue.Queue()
        threading.Thread(target=self._work, daemon=True).start()

    def complete(self, body):
        """The body of a chat completion for the body of a request."""
        answer = Future()
        self.waiting.put((body, answer))
        return answer.result()

    def _work(self):
        left = []
        while True:
            if not left:
                left.append(self.waiting.get())
            while not self.waiting.empty():
                left.append(self.waiting.get())
            alike = [one for one in left if self._how(one[0]) == self._how(left[0][0])][:BATCH]
            left = [one for one in left if not any(one is other for other in alike)]
            try:
                answers = self._write([body for body, _ in alike])
            except Exception as error:  # said to those that wait, or they would for ever
                for _, answer in alike:
                    answer.set_exception(error)
            else:
                for (_, answer), written in zip(alike, answers, strict=True):
                    answer.set_result(written)

    def _how(self, body):
        return body["model"], body.get("temperature", 0), body.get("top_p", 1), body.get("seed", 0)

    def _write(self, bodies):
        texts = [
            self.tokenizer.apply_chat_template(body["messages"], add_generation_prompt=True, tokenize=False)
            for body in bodies
        ]
        prompts = self.tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=False)
        limits = [int(body.get("max_tokens", 256)) for body in bodies]
        heat = float(bodies[0].get("temperature", 0))
        how = {"temperature": heat, "top_p": float(bodies[0].get("top_p", 1))} if heat else {}
        with self.torch.no_grad():
            self.torch.manual_seed(int(bodies[0].get("seed", 0)))
            rows = self.model.generate(
                **prompts,
                max_new_tokens=max(limits),
                pad_token_id=self.tokenizer.eos_token_id,
                do_sample=bool(heat),
                **how,
            )[:, prompts["input_ids"].shape[1] :]
        return [
            self._answer(body, row.tolist(), int(asked), limit)
            for body, row, asked, limit in zip(bodies, rows, prompts["attention_mask"].sum(dim=1), limits, strict=True)
        ]

    def _answer(self, body, row, asked, limit):
        ends = [place for place, token in enumerate(row) if token == self.tokenizer.eos_token_id]
        end = ends[0] if ends else len(row)
        text = self.tokenizer.decode(row[: min(end, limit)], skip_special_tokens=True)
        return {
            "object": "chat.completion",
            "model": body["model"],
            "choices": [
                {
                    "index": 0,
                    "message": {"role": "assistant", "content": text},
                    "finish_reason": "stop" if ends and end < limit else "length",
                }
            ],
            "usage": {"prompt_tokens": asked, "completion_tokens": min(end + 1, limit)},
        }


def serve(model, port):
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            answer = json.dumps(model.complete(body)).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    print(f"http://127.0.0.1:{server.server_port}/v1", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--port", type=int, default=0)
    options = parser.parse_args()
    serve(Model(options.folder), options.port)
