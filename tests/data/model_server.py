"""A small OpenAI-compatible server on a folder that transformers saved: model_server.py FOLDER --port 8123.

One request at a time, on the processor: enough to try operations that ask a model with a real one, not to serve many.
"""

import argparse
import json
import os
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

os.environ.update(HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false")


class Model:
    """A causal model with a chat template."""

    def __init__(self, folder):
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self.torch = torch
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        self.lock = threading.Lock()

    def complete(self, body):
        """The body of a chat completion for the body of a request."""
        prompt = self.tokenizer.apply_chat_template(body["messages"], add_generation_prompt=True, return_tensors="pt")
        prompt = prompt if self.torch.is_tensor(prompt) else prompt["input_ids"]
        limit, heat = int(body.get("max_tokens", 256)), float(body.get("temperature", 0))
        how = (
            {"do_sample": True, "temperature": heat, "top_p": float(body.get("top_p", 1))}
            if heat
            else {"do_sample": False}
        )
        with self.lock, self.torch.no_grad():
            self.torch.manual_seed(int(body.get("seed", 0)))
            pad = self.tokenizer.eos_token_id
            written = self.model.generate(
                prompt, attention_mask=self.torch.ones_like(prompt), max_new_tokens=limit, pad_token_id=pad, **how
            )
        new = written[0, prompt.shape[1] :]
        ended = int(new[-1]) in {pad, self.model.generation_config.eos_token_id}
        return {
            "object": "chat.completion",
            "model": body["model"],
            "choices": [
                {
                    "index": 0,
                    "message": {"role": "assistant", "content": self.tokenizer.decode(new, skip_special_tokens=True)},
                    "finish_reason": "stop" if ended else "length",
                }
            ],
            "usage": {"prompt_tokens": prompt.shape[1], "completion_tokens": len(new)},
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
