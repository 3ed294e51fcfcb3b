"""Runs the examples of a document against a server: python docs.py docs/serve.md http://127.0.0.1:8420"""

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

document, address = Path(sys.argv[1]), sys.argv[2]
runners = {"python": [sys.executable, "-"], "javascript": ["node", "--input-type=module", "-"], "sh": ["bash", "-eu"]}
blocks = re.findall(r"^```(python|javascript|sh)\n(.*?)^```$", document.read_text(), re.DOTALL | re.MULTILINE)
languages = [language for language, _ in blocks]
assert set(languages) == set(runners), f"{document} has examples in {languages}"
with tempfile.TemporaryDirectory() as folder:
    os.symlink(Path(__file__).parent.resolve() / "node_modules", Path(folder, "node_modules"))
    for language, code in blocks:
        code = code.replace("http://127.0.0.1:8420", address)
        subprocess.run(runners[language], input=code.encode(), cwd=folder, check=True, timeout=300)
        print(f"ok {language}: {code.splitlines()[0]}", flush=True)
    assert Path(folder, "heart.png").read_bytes()[:4] == b"\x89PNG"
print(f"{len(blocks)} passed, 0 failed")
