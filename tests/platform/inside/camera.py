"""Runs in the container: serves the pictures of /opt/test/frames as an endless MJPEG stream on port 8080."""

import http.server
import itertools
import pathlib
import time

PICTURES = [file.read_bytes() for file in sorted(pathlib.Path("/opt/test/frames").iterdir())]


class Stream(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=next")
        self.end_headers()
        for picture in itertools.cycle(PICTURES):
            self.wfile.write(b"--next\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(picture))
            self.wfile.write(picture + b"\r\n")
            time.sleep(0.08)


http.server.ThreadingHTTPServer(("127.0.0.1", 8080), Stream).serve_forever()
