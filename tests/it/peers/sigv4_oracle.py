"""Recomputes the AWS signature of every request from the bytes that arrived, with botocore, and answers 200 or 403.

Usage: sigv4_oracle.py PORT ACCESS_KEY SECRET [SECONDS]; SECONDS is what its clock is ahead.
"""

import datetime
import email.utils
import hashlib
import hmac
import json
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from botocore.auth import S3SigV4Auth, SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

ACCESS_KEY, SECRET = sys.argv[2], sys.argv[3]
AHEAD = int(sys.argv[4]) if len(sys.argv) > 4 else 0


class Refused(Exception):
    pass


class Oracle(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def body(self):
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            whole = b""
            while True:
                size = int(self.rfile.readline().split(b";")[0], 16)
                whole += self.rfile.read(size)
                self.rfile.readline()
                if size == 0:
                    return whole
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def judge(self, body):
        fields = dict(part.strip().split("=", 1) for part in self.headers["Authorization"].split(" ", 1)[1].split(","))
        key, date, region, service, _ = fields["Credential"].split("/")
        if key != ACCESS_KEY:
            raise Refused("unknown key")
        stamp = self.headers["X-Amz-Date"]
        moment = datetime.datetime.strptime(stamp, "%Y%m%dT%H%M%SZ").replace(tzinfo=datetime.timezone.utc).timestamp()
        if abs(moment - time.time() - AHEAD) > 900 or not stamp.startswith(date):
            raise Refused("RequestTimeTooSkewed")
        signed = fields["SignedHeaders"].split(";")
        for name in self.headers:
            if name.lower().startswith("x-amz-") and name.lower() not in signed:
                raise Refused(f"{name} is not signed")
        if "host" not in signed:
            raise Refused("host is not signed")
        content = self.headers["X-Amz-Content-Sha256"]
        headers = {}
        for name in signed:
            headers[name] = ",".join(" ".join(value.split()) for value in self.headers.get_all(name))
        request = AWSRequest(method=self.command, url=f"https://{self.headers['Host']}{self.path}", headers=headers, data=body)
        request.context["timestamp"] = stamp
        auth = (S3SigV4Auth if service == "s3" else SigV4Auth)(Credentials(ACCESS_KEY, SECRET), service, region)
        canonical = auth.canonical_request(request)
        if auth.signature(auth.string_to_sign(request, canonical), request) != fields["Signature"]:
            raise Refused(canonical)
        if content == "STREAMING-AWS4-HMAC-SHA256-PAYLOAD":
            body = self.chunks(body, stamp, "/".join([date, region, service, "aws4_request"]), fields["Signature"])
        elif content != "UNSIGNED-PAYLOAD" and content != hashlib.sha256(body).hexdigest():
            raise Refused("the body is another one")
        return content, body

    def chunks(self, framed, stamp, scope, previous):
        key = ("AWS4" + SECRET).encode()
        for part in scope.split("/"):
            key = hmac.new(key, part.encode(), hashlib.sha256).digest()
        whole, size = b"", None
        while size != 0:
            head, framed = framed.split(b"\r\n", 1)
            size, signature = head.decode().split(";chunk-signature=")
            size = int(size, 16)
            data, end, framed = framed[:size], framed[size : size + 2], framed[size + 2 :]
            text = "\n".join(
                ["AWS4-HMAC-SHA256-PAYLOAD", stamp, scope, previous, hashlib.sha256(b"").hexdigest(), hashlib.sha256(data).hexdigest()]
            )
            previous = hmac.new(key, text.encode(), hashlib.sha256).hexdigest()
            if previous != signature or end != b"\r\n":
                raise Refused("a chunk is another one")
            whole += data
        if framed or len(whole) != int(self.headers["X-Amz-Decoded-Content-Length"]):
            raise Refused("the chunks do not make up the body")
        return whole

    def answer(self):
        body = self.body()
        try:
            content, body = self.judge(body)
            status, text = 200, {"content": content, "path": self.path, "length": len(body), "sha256": hashlib.sha256(body).hexdigest()}
        except Refused as refused:
            status, text = 403, {"why": str(refused)}
        except Exception as error:
            status, text = 400, {"why": repr(error)}
        text = json.dumps(text).encode()
        self.send_response_only(status)
        self.send_header("Date", email.utils.formatdate(time.time() + AHEAD, usegmt=True))
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(b"" if self.command == "HEAD" else text)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = do_PATCH = answer


ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Oracle).serve_forever()
