"""A photo through the detector and a network: sizes, modes, orientations, files that are not photos."""
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from skimage import data as photos

from mixcut.config import Config, ConfigError, from_parameters
from mixcut.data import load
from mixcut.faces import draw, drawn_faces, sample_faces
from mixcut.layouts import decode
from mixcut.predict import (
    WEIGHTS,
    PredictError,
    Settings,
    cut_out,
    export_onnx,
    find_faces,
    load_network,
    predict,
    read_photo,
    show_faces,
)
from mixcut.train import fit

RECORDS = Path(__file__).parent.parent / "reports/mini/runs/fer2013plus"


def group_photo(count, seed=1, size=140):
    """Drawn faces in a row on a grey wall."""
    heads = draw(sample_faces(count, seed=seed), size=size, channels=3).movedim(1, 3).numpy()
    margin = size // 2
    wall = np.full((size + 2 * margin, count * (size + margin) + margin, 3), 190, np.uint8)
    for k, head in enumerate(heads):
        left = margin + k * (size + margin)
        wall[margin:margin + size, left:left + size] = head
    return wall


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    runs = str(tmp_path_factory.mktemp("runs"))
    config = Config(epochs=1, width=0.05, aug="baseline", runs=runs, device="cpu", precision="fp32")
    fit(config, load("drawn", train=80, valid=20, test=20), lambda text, last=False: None)
    return config.folder / "model.safetensors"


@pytest.fixture(scope="module")
def network(weights):
    return load_network(weights)


@pytest.mark.parametrize("name", ["mixcut", "baseline"])
def test_the_package_knows_people(name):
    [face] = predict(photos.astronaut(), load_network(name))
    top, left, side = face.box
    assert 40 < top < 80 and 150 < left < 190 and 100 < side < 130  # her face, and no other
    assert face.probabilities.idxmax() == "happiness"  # she smiles


@pytest.mark.parametrize("name", ["mixcut", "baseline"])
def test_the_card_is_that_of_the_records(name):
    card = WEIGHTS[name].with_name("README.md").read_text(encoding="utf-8")
    with np.load(RECORDS / name / "epochs-250/seed0/predictions.npz") as record:
        right = record["test_probabilities"].argmax(1) == record["test_labels"]
        kept = right[~record["test_copies"].astype(bool)]
    rows = {line.split(" |")[0].strip("| "): line for line in card.splitlines() if line.startswith("|")}
    assert f" {100 * right.mean():.1f} (" in rows[f"all {len(right):,} images"]
    assert f" {100 * kept.mean():.1f} (" in rows[f"without {len(right) - len(kept)} copies"]


@pytest.mark.parametrize("count", [1, 3, 6])
def test_each_face_is_found_once_and_in_order(network, count):
    photo = group_photo(count)
    faces = predict(photo, network)
    assert len(faces) == count and [f.box[1] for f in faces] == sorted(f.box[1] for f in faces)
    for k, face in enumerate(faces):
        top, left, side = face.box
        assert 105 + 210 * k <= left + side / 2 <= 175 + 210 * k and 70 <= top + side / 2 <= 210  # the head's
        assert face.image.shape == (1, 48, 48) and face.probabilities.shape == (8,)
    show_faces(photo, faces)


@pytest.mark.parametrize("name", ["camera", "chelsea", "coffee", "rocket", "clock"])
def test_faces_only_where_there_are_some(name):
    photo = getattr(photos, name)()
    photo = photo if photo.ndim == 3 else photo[..., None].repeat(3, 2)
    assert len(find_faces(photo)) == (name == "camera")  # the photographer, from the side; a cat is not one


def test_turned_covered_dark_and_large():
    woman = Image.fromarray(photos.astronaut())
    hat, dark, large = np.array(woman), np.array(woman) // 4, np.array(woman.resize((3072, 3072)))
    hat[:85, 160:290] = 40
    for photo in (np.array(woman.rotate(40)), np.array(woman.rotate(-40)), hat, dark):
        assert len(find_faces(photo)) == 1
    [there], [box] = find_faces(large), find_faces(np.array(woman))
    assert np.allclose(there, 6 * np.array(box), atol=60)


def test_no_face_says_so_and_a_whole_one_needs_no_detector(network, monkeypatch):
    wall = np.full((120, 90, 3), 120, np.uint8)
    assert predict(wall, network) == []
    assert "No face was found" in show_faces(wall, []).axes[0].get_title()
    monkeypatch.setitem(__import__("sys").modules, "cv2", None)
    [face] = predict(wall, network, whole=True)
    assert face.box == (15, 0, 90) and abs(face.probabilities.sum() - 1) < 1e-5
    with pytest.raises(PredictError, match="pip install"):
        find_faces(wall)


@pytest.mark.parametrize("faces", [torch.rand(2, 1, 48, 48), torch.zeros(2, 1, 64, 64, dtype=torch.uint8)])
def test_a_network_refuses_what_would_look_like_an_answer(network, faces):
    with pytest.raises(PredictError, match=r"faces must be uint8 \[N, 1, 48, 48\]"):
        network(faces)


def test_a_photo_of_floats_or_one_channel_is_refused(network):
    for photo in (np.zeros((90, 90, 3), np.float32), np.zeros((90, 90), np.uint8)):
        with pytest.raises(PredictError, match=r"a photo must be uint8 \[H, W, 3\]"):
            predict(photo, network)


@pytest.mark.parametrize("shape", [(1, 1), (5, 5), (23, 400), (400, 30), (3, 2000)])
def test_photos_of_odd_sizes(network, shape):
    photo = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    assert isinstance(predict(photo, network), list) and len(predict(photo, network, whole=True)) == 1


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "P", "1", "CMYK", "I;16"])
def test_pictures_of_every_mode(tmp_path, mode):
    image = Image.fromarray(group_photo(1))
    deep = Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 256)
    (deep if mode == "I;16" else image.convert(mode)).save(tmp_path / "photo.tiff")
    photo = read_photo(tmp_path / "photo.tiff")
    assert photo.shape == (280, 280, 3) and photo.dtype == np.uint8


def test_a_camera_held_sideways(tmp_path, network):
    image = Image.fromarray(group_photo(2)).transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera says: turn by 90° clockwise
    image.save(tmp_path / "photo.jpg", exif=exif, quality=95)
    assert len(predict(read_photo(tmp_path / "photo.jpg"), network)) == 2


def test_a_phones_heic_and_a_hint_for_one_that_cannot_be_read(tmp_path):
    pytest.importorskip("pillow_heif")
    woman = photos.astronaut()
    Image.fromarray(woman).save(tmp_path / "photo.heic", quality=90)
    assert abs(read_photo(tmp_path / "photo.heic").astype(int) - woman).mean() < 5
    (tmp_path / "torn.heic").write_bytes((tmp_path / "photo.heic").read_bytes()[:3000])
    with pytest.raises(PredictError, match="pillow-heif"):
        read_photo(tmp_path / "torn.heic")


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("shape", [(192, 192), (192, 137), (50, 64)])
def test_a_whole_picture_is_what_training_would_see(tmp_path, shape, channels):
    """Decoded, scaled and cropped as the loader does it, whatever kind of file it is."""
    face = drawn_faces(1, 0, size=192, channels=3)[0][0].movedim(0, 2).numpy()
    face = Image.fromarray(face).resize(shape[::-1])
    kinds = {"a.png": face, "grey.png": face.convert("L"), "clear.png": face.convert("RGBA"),
             "palette.png": face.convert("P"), "cmyk.tiff": face.convert("CMYK"),
             "16.png": Image.fromarray(np.asarray(face.convert("L")).astype(np.uint16) * 257)}
    for name, image in kinds.items():
        image.save(tmp_path / name)
        seen = cut_out(read_photo(tmp_path / name), None, 48, channels)[0].numpy()
        assert np.array_equal(seen, decode(tmp_path / name, 48, channels, fit=True)), name


def test_a_picture_of_unknown_range_is_named(tmp_path):
    grey = np.asarray(Image.fromarray(group_photo(1)).convert("L")).astype(np.uint16)
    Image.fromarray(grey * 16).save(tmp_path / "12.png")
    with pytest.raises(PredictError, match="12.png: cannot be decoded .*under a quarter of white"):
        read_photo(tmp_path / "12.png")


def test_a_face_at_the_border_goes_on():
    photo = np.arange(100, dtype=np.uint8).reshape(10, 10)[..., None].repeat(3, 2)
    corner = cut_out(photo, (-4, -4, 10), 10, 3)[0, 0]
    assert torch.equal(corner[:5, :5], torch.zeros(5, 5, dtype=torch.uint8))
    assert torch.equal(corner[4:, 4:], torch.from_numpy(photo[:6, :6, 0]))


@pytest.mark.parametrize("damage", [lambda b: b"", lambda b: b"words", lambda b: b[:len(b) // 2],
                                    lambda b: b[:-1000] + bytes([b[-1000] ^ 1]) + b[-999:]])
def test_torn_weights_are_named(tmp_path, weights, damage):
    (tmp_path / "w.safetensors").write_bytes(damage(weights.read_bytes()))
    with pytest.raises(PredictError, match="w.safetensors: cannot load a network .*: give weights = mixcut"):
        load_network(tmp_path / "w.safetensors")


@pytest.mark.parametrize("change, match", [
    (lambda header: {}, "KeyError: 'classes'"), (lambda header: header | {"config": "{"}, "JSONDecodeError"),
    (lambda header: header | {"classes": json.dumps(["a", "b"])}, "size mismatch"),
    (lambda header: header | {"config": '{"crop": 44, "width": 1, "dropout": 0.5}'}, "size mismatch"),
    (lambda header: header | {"images": "[]"}, "TypeError"),
])
def test_weights_of_something_else_are_named(tmp_path, weights, network, change, match):
    header = {"classes": json.dumps(network.classes), "config": json.dumps(network.config),
              "images": json.dumps({"size": 48, "channels": 1})}
    save_file(load_file(weights), tmp_path / "w.safetensors", change(header))
    with pytest.raises(PredictError, match=f"cannot load a network .*{match}"):
        load_network(tmp_path / "w.safetensors")


def test_a_folded_network_says_what_the_run_measured(weights, network):
    data = load("drawn", train=80, valid=20, test=20)
    face = predict(data.test.images[3, 0].numpy()[..., None].repeat(3, 2), network, whole=True)[0]
    assert torch.equal(face.image, data.test.images[3])
    with np.load(weights.parent / "predictions.npz") as records:
        assert np.allclose(face.probabilities, records["test_probabilities"][3], atol=1e-5)


def test_the_onnx_graph_says_what_torch_says(tmp_path):
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    network = load_network("mixcut")
    export_onnx(network, tmp_path / "mixcut.onnx")
    session = runtime.InferenceSession(tmp_path / "mixcut.onnx")
    for count in (1, 7):
        faces = drawn_faces(count, seed=0)[0]
        [found] = session.run(None, {"images": faces.numpy()})
        assert np.abs(found - network(faces).numpy()).max() < 1e-4


@pytest.mark.parametrize("name, content", [("missing.jpg", None), ("text.jpg", b"words"), ("empty.png", b""),
                                           ("half.png", b"half")])
def test_pictures_that_are_none(tmp_path, name, content):
    if content == b"half":
        Image.fromarray(group_photo(1)).save(tmp_path / name)
        content = (tmp_path / name).read_bytes()[:5000]
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(PredictError, match=name):
        read_photo(tmp_path / name)


def test_a_picture_that_would_fill_the_memory(tmp_path, monkeypatch):
    Image.fromarray(group_photo(1)).save(tmp_path / "large.png")  # 78,400 pixels
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 50_000)
    assert read_photo(tmp_path / "large.png").shape == (280, 280, 3)  # a phone's photo may be twice as large
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 30_000)
    with pytest.raises(PredictError, match="large.png: cannot be decoded .*Make it smaller"):
        read_photo(tmp_path / "large.png")
    assert Image.MAX_IMAGE_PIXELS == 30_000


def test_home_is_understood(tmp_path, monkeypatch, weights):
    monkeypatch.setenv("HOME", str(tmp_path))
    Image.fromarray(group_photo(1)).save(tmp_path / "photo.png")
    (tmp_path / "w.safetensors").write_bytes(weights.read_bytes())
    assert read_photo("~/photo.png").shape == (280, 280, 3) and load_network("~/w.safetensors").size == 48


def test_parameters_are_checked():
    with pytest.raises(ConfigError, match="did you mean 'image'"):
        from_parameters({"imag": "x"}, Settings)
    with pytest.raises(ConfigError, match="image = 2024: it must be a valid string.* -r instead of -p"):
        from_parameters({"image": 2024}, Settings)
    with pytest.raises(ConfigError, match="whole = 'perhaps'"):
        from_parameters({"whole": "perhaps"}, Settings)
    with pytest.raises(ValueError, match="image\n.*valid string"):
        Settings(image=2024)
