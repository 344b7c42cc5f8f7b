"""A loopback server that answers chat completions as a test tells it to."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def completion(text, **more):
    return {
        "choices": [{"message": {"role": "assistant", "content": text}, "finish_reason": "stop"} | more],
        "usage": {"prompt_tokens": 7, "completion_tokens": 3},
    }


class StubModel:
    """`answer(body, index)` gives (status, headers, body to send as JSON); it may block. `requests` are the bodies."""

    def __init__(self, answer):
        self.requests, self.headers = [], []
        lock = threading.Lock()
        stub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with lock:
                    index = len(stub.requests)
                    stub.requests.append(body)
                    stub.headers.append(dict(self.headers))
                status, headers, sent = answer(body, index)
                data = sent if isinstance(sent, bytes) else json.dumps(sent).encode()
                try:
                    self.send_response(status)
                    for name, value in headers.items():
                        self.send_header(name, value)
                    self.send_header("Content-Length", str(len(data)))
                    self.end_headers()
                    self.wfile.write(data)
                except OSError:
                    pass  # the client did not wait

            def log_message(self, *_):
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

        self._server = Server(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}/v1"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def says(text):
    """A server that always answers `text`, or what it makes of the body."""
    return StubModel(lambda body, index: (200, {}, completion(text(body) if callable(text) else text)))
