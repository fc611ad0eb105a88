#!/usr/bin/env python3
"""ask.py URL QUESTION: streams one chat answer to stdout. Exits 1 when the stream carries an error or no text."""
import json
import sys
import urllib.request

url, question = sys.argv[1:3]
body = {"messages": [{"role": "user", "content": question}], "stream": True, "max_tokens": 96, "temperature": 0}
request = urllib.request.Request(
    url + "/v1/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
)
text = ""
with urllib.request.urlopen(request, timeout=120) as answer:
    for line in answer:
        if not line.startswith(b"data: ") or line.strip() == b"data: [DONE]":
            continue
        event = json.loads(line[6:])
        if "error" in event:
            sys.exit("error: " + event["error"]["message"])
        for choice in event["choices"]:
            piece = choice["delta"].get("content") or ""
            text += piece
            print(piece, end="", flush=True)
print()
sys.exit(0 if text.strip() else "the model gave no text")
