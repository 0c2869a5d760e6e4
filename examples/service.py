"""A service with one endpoint: an image and facts about the patient in, probabilities out."""

import os
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Annotated

from fastapi import FastAPI, Form, HTTPException, UploadFile

import mmfusion

LARGEST = 20 * 1024 * 1024
predictor = mmfusion.Predictor.from_pretrained(os.environ.get("MODEL", "mibf_lite0.ham10000"), device="cpu")
app = FastAPI()
Text = Annotated[str | None, Form()]


@app.post("/diagnose")
def diagnose(image: UploadFile, age: Text = None, sex: Text = None, localization: Text = None) -> dict:
    if (image.size or 0) > LARGEST:
        raise HTTPException(413, f"The image is larger than {LARGEST:,} bytes.")
    with NamedTemporaryFile(suffix=Path(image.filename or "").suffix) as file:
        file.write(image.file.read())
        file.flush()
        row = {"image": file.name, "age": age, "sex": sex, "localization": localization}
        (found,) = predictor.predict([row])
    if "error" in found:
        raise HTTPException(422, found["error"].replace(file.name, image.filename or "given"))
    return found
