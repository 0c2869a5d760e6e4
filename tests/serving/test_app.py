"""``mmfusion app`` in a real browser, and its refusals. Gradio may be in a separate environment, `.venv-app`."""

from __future__ import annotations

import http.client
import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

import mmfusion
from mmfusion.data import Processor
from mmfusion.data.table_columns import CategoricalColumn, NumericColumn, TableColumns

ROOT = Path(mmfusion.__file__).parents[1]
OWN = ROOT / ".venv-app" / "bin" / "python"

pytestmark = pytest.mark.slow


def interpreter() -> str:
    """A Python with Gradio: this one, or that of ``make .venv-app/.installed``."""
    if importlib.util.find_spec("gradio"):
        return sys.executable
    if not OWN.exists():
        pytest.skip("the page needs Gradio, here or in .venv-app")
    return str(OWN)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of an image and two columns, and files to upload."""
    root = tmp_path_factory.mktemp("app")
    columns = [NumericColumn("age", 50.0, 10.0, 20.0, 90.0, [20.0, 90.0])], [CategoricalColumn("sex", ["f", "m"])]
    table = TableColumns(*columns)
    torch.manual_seed(0)
    model = mmfusion.create_model(
        "test_concat", num_classes=2, text_encoder=None, table_encoder="table_mlp", table_args=table.table_args()
    )
    rule = {"coverage": 0.9, "method": "lac", "thresholds": [0.99, 0.99]}
    calibration = {"temperature": 1.0, "fitted_on": "val", "n": 60, "conformal": rule}
    processor = Processor(["no", "yes"], image_size=32, table=table)
    mmfusion.Predictor(model, processor, calibration).save_pretrained(root / "model")
    for i in range(2):
        pixels = np.random.default_rng(i).integers(0, 256, (40, 40, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(root / f"case {i}.png")
    (root / "bad.png").write_bytes(b"no picture")
    rows = "case 0.png,30,f\ncase 1.png,60,m\n../model/config.json,50,m\n"
    (root / "cases.csv").write_text(f"image,age,sex\n{rows}")
    return root


@pytest.fixture(scope="module")
def page(folder: Path) -> Iterator[tuple[str, Path]]:
    """Address of the page, and its folder of uploads."""
    temporary = folder / "tmp"
    temporary.mkdir()
    command = [interpreter(), "-m", "mmfusion", "app", "--model", str(folder / "model"), "--port", "0"]
    environment = os.environ | {"TMPDIR": str(temporary), "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    options: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    running = subprocess.Popen([*command, "--max_upload_mb", "1"], env=environment, cwd=folder, **options)
    said = []
    for line in running.stdout:
        said.append(line)
        if found := re.search(r" on (http://127\.0\.0\.1:\d+) ", line):
            break
    else:
        pytest.fail(f"the page did not start: {''.join(said)}")
    (uploads,) = temporary.glob("mmfusion-app-*")
    yield found[1], uploads
    running.send_signal(signal.SIGTERM)
    rest, _ = running.communicate(timeout=60)
    assert running.returncode == 0 and "is closed; its uploads are deleted" in rest
    assert not uploads.exists()


def ask(address: str, path: str, body: bytes = b"", **headers: str) -> tuple[int, str]:
    """Status and text of a response."""
    connection = http.client.HTTPConnection(address.removeprefix("http://"), timeout=60)
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request("POST" if body else "GET", path, body or None, named)
    answer = connection.getresponse()
    return answer.status, answer.read().decode()


def call(address: str, *data: Any) -> str:
    """Events of a call of the documented function ``predict``."""
    body = json.dumps({"data": data}).encode()
    status, text = ask(address, "/gradio_api/call/predict", body, Content_Type="application/json")
    assert status == 200, text
    return ask(address, f"/gradio_api/call/predict/{json.loads(text)['event_id']}")[1]


def upload(address: str, path: Path) -> tuple[int, str]:
    head = f'--x\r\nContent-Disposition: form-data; name="files"; filename="{path.name}"\r\n\r\n'
    body = head.encode() + path.read_bytes() + b"\r\n--x--\r\n"
    return ask(address, "/gradio_api/upload", body, Content_Type="multipart/form-data; boundary=x")


def test_function_for_programs(page: tuple[str, Path], folder: Path) -> None:
    address, _ = page
    described = json.loads(ask(address, "/gradio_api/info")[1])["named_endpoints"]
    assert described.keys() == {"/predict"}
    assert [one["parameter_name"] for one in described["/predict"]["parameters"]] == ["model", "row", "images"]
    status, text = upload(address, folder / "case 0.png")
    assert status == 200
    row = {"age": 30, "sex": "f"}
    file = {"path": json.loads(text)[0], "meta": {"_type": "gradio.FileData"}}
    answered = call(address, str(folder / "model"), row, [file])
    (found,) = json.loads(re.search(r"event: complete\ndata: (.*)", answered)[1])
    predictor = mmfusion.Predictor.from_pretrained(folder / "model")
    (wanted,) = predictor.predict([{"image": folder / "case 0.png", **row}])
    assert found["probabilities"] == pytest.approx(wanted["probabilities"], abs=1e-6)
    assert found["inputs"] == "image+table" and sorted(found["likely"]) == ["no", "yes"]


def test_refused(page: tuple[str, Path], folder: Path) -> None:
    address, uploads = page
    model = str(folder / "model")
    for path in (folder / "case 0.png", Path("/etc/passwd"), uploads / ".." / "x"):
        answered = call(address, model, {}, [{"path": str(path), "meta": {"_type": "gradio.FileData"}}])
        assert "event: error" in answered and "probabilities" not in answered
    for model_, row in (("another", {"age": 3}), (model, {"image": str(folder / "case 0.png")})):
        assert "event: error" in call(address, model_, row, [])
    assert ask(address, "/", Host="evil.example")[0] == 400
    assert ask(address, f"/gradio_api/file={folder / 'cases.csv'}")[0] == 403
    (folder / "large.bin").write_bytes(bytes(3 * 2**20))
    assert upload(address, folder / "large.bin")[0] == 413


def test_in_a_browser(page: tuple[str, Path], folder: Path, browser: Any) -> None:
    from selenium.webdriver.common.by import By

    address, uploads = page

    def wait(selector: str, holds: str = "") -> Any:
        for _ in range(600):
            found = browser.find_elements(By.CSS_SELECTOR, selector)
            if found and holds in found[0].text:
                return found[0]
            time.sleep(0.1)
        raise AssertionError(f"{selector} does not say {holds!r}: {[one.text for one in found]}")

    browser.set_window_size(1280, 1400)
    browser.get(address)
    wait("#image input[type=file]").send_keys(str(folder / "case 0.png"))
    wait("#image", "case 0")
    age = wait("#field-age :is(input, textarea)")
    assert age.get_attribute("value") == ""  # 0 would be read as an age
    age.send_keys("30")
    wait("#run").click()
    predictor = mmfusion.Predictor.from_pretrained(folder / "model")
    (wanted,) = predictor.predict([{"image": folder / "case 0.png", "age": 30}])
    about = wait("#about", "probability").text
    assert f"{wanted['label']}, probability {wanted['probability']:.2f}, based on image and table" in about
    assert "Set of classes" in about and "90%" in about
    wait("#picture img")
    assert "image + table" in wait("#shown", "none").text
    assert [one["level"] for one in browser.get_log("browser") if one["level"] == "SEVERE"] == []
    script = "return performance.getEntriesByType('resource').map(e => e.name)"
    assert [url for url in browser.execute_script(script) if not url.startswith((address, "data:", "blob:"))] == []
    browser.set_window_size(420, 900)
    scroll, client = browser.execute_script("const e = document.documentElement; return [e.scrollWidth, e.clientWidth]")
    assert scroll <= client
    browser.set_window_size(1280, 1400)

    browser.refresh()
    wait("#image input[type=file]").send_keys(str(folder / "bad.png"))
    wait("#image", "bad")
    wait("#run").click()
    said = wait(".toast-wrap", "cannot be decoded").text
    assert "bad.png" in said and str(uploads) not in said

    tabs = browser.find_elements(By.XPATH, "//button[@role='tab' and normalize-space()='Table']")
    next(tab for tab in tabs if tab.is_displayed()).click()
    files = "\n".join(str(folder / name) for name in ("cases.csv", "case 0.png", "case 1.png"))
    wait("#files input[type=file]").send_keys(files)
    wait("#files", "cases")
    wait("#run-table").click()
    link = wait("#csv a").get_attribute("href")
    (folder / "fetched.csv").write_text(ask(address, link.removeprefix(address))[1])
    table = pd.read_csv(folder / "fetched.csv")
    assert table["id"].tolist()[:2] == ["case 0.png", "case 1.png"] and len(table) == 3
    assert table["error"].isna().tolist() == [True, True, False]
    rows = [{"image": folder / "case 1.png", "age": 60, "sex": "m"}]
    assert table["p_yes"][1] == pytest.approx(predictor.predict_proba(rows)[0, 1], abs=1e-5)


def test_service_of_the_page(folder: Path) -> None:
    """The service of docs/deploy.md predicts an image, and reports a bad one."""
    service = ROOT / "examples" / "service.py"
    page = (ROOT / "docs" / "deploy.md").read_text(encoding="utf-8")
    assert service.read_text(encoding="utf-8") in page
    assert (ROOT / "examples" / "Dockerfile").read_text(encoding="utf-8") in page
    program = """
import sys, uvicorn, socket, service
listener = socket.create_server(("127.0.0.1", 0))
print("port", listener.getsockname()[1], flush=True)
uvicorn.Server(uvicorn.Config(service.app, log_level="error")).run(sockets=[listener])
"""
    paths = os.pathsep.join([str(ROOT), str(service.parent)])
    environment = os.environ | {"PYTHONPATH": paths, "MODEL": str(folder / "model")}
    command = [interpreter(), "-c", program]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as running:
        port = running.stdout.readline().split()[1]
        given = {name: post(f"http://127.0.0.1:{port}", folder / name) for name in ("case 0.png", "bad.png")}
        running.terminate()
    predictor = mmfusion.Predictor.from_pretrained(folder / "model")
    (wanted,) = predictor.predict([{"image": folder / "case 0.png", "age": 30, "sex": None}])
    status, text = given["case 0.png"]
    assert status == 200 and json.loads(text)["probabilities"] == pytest.approx(wanted["probabilities"], abs=1e-6)
    status, text = given["bad.png"]
    assert status == 422 and "bad.png cannot be decoded" in text and "/tmp" not in text


def post(address: str, path: Path) -> tuple[int, str]:
    """Post a form with an image and an age."""
    age = '--x\r\nContent-Disposition: form-data; name="age"\r\n\r\n30\r\n'
    head = f'{age}--x\r\nContent-Disposition: form-data; name="image"; filename="{path.name}"\r\n\r\n'
    body = head.encode() + path.read_bytes() + b"\r\n--x--\r\n"
    return ask(address, "/diagnose", body, Content_Type="multipart/form-data; boundary=x")
