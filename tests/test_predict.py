"""A photo through the detector and a trained network: sizes, modes, orientations, no faces, many faces, files that are not what they say."""
import json

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from mixcut.data import load
from mixcut.faces import drawn_faces
from mixcut.layouts import decode
from mixcut.predict import PredictError, cut_out, find_faces, group_photo, load_network, network_and_photo, predict, read_photo, sentence, show_faces
from mixcut.predict import Settings
from mixcut.config import Config, ConfigError, from_parameters
from mixcut.train import fit


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    config = Config(epochs=1, width=0.05, aug="baseline", runs=str(tmp_path_factory.mktemp("runs")), device="cpu", precision="fp32")
    fit(config, load("drawn", train=80, valid=20, test=20), lambda text, last=False: None)
    return config.folder / "model.safetensors"


@pytest.fixture(scope="module")
def network(weights):
    return load_network(weights)


@pytest.mark.parametrize("count", [1, 3, 6])
def test_each_face_is_found_once_and_in_order(network, count):
    photo = group_photo(count, seed=1)
    faces = predict(photo, network)
    assert len(faces) == count and [f.box[1] for f in faces] == sorted(f.box[1] for f in faces)
    for k, face in enumerate(faces):
        top, left, side = face.box
        assert 105 + 210 * k <= left + side / 2 <= 175 + 210 * k and 70 <= top + side / 2 <= 210  # the head it is cut from
        assert face.image.shape == (1, 48, 48) and face.probabilities.shape == (8,)
    assert sentence(faces, network).startswith(f"{count} face")
    show_faces(photo, faces, network)


def test_no_face_says_so_and_a_whole_one_needs_no_detector(network):
    wall = np.full((120, 90, 3), 120, np.uint8)
    assert predict(wall, network) == [] and "No face was found" in sentence([], network)
    show_faces(wall, [], network)
    [face] = predict(wall, network, whole=True)
    assert face.box == (15, 0, 90) and abs(face.probabilities.sum() - 1) < 1e-5


@pytest.mark.parametrize("shape", [(1, 1), (5, 5), (23, 400), (400, 30)])
def test_photos_of_odd_sizes(network, shape):
    photo = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    assert isinstance(predict(photo, network), list) and len(predict(photo, network, whole=True)) == 1


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "P", "1", "CMYK", "I;16"])
def test_pictures_of_every_mode(tmp_path, mode):
    image = Image.fromarray(group_photo(1))
    image = Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 256) if mode == "I;16" else image.convert(mode)
    image.save(tmp_path / "photo.tiff")
    photo = read_photo(tmp_path / "photo.tiff")
    assert photo.shape == (280, 280, 3) and photo.dtype == np.uint8


def test_a_camera_held_sideways(tmp_path, network):
    image = Image.fromarray(group_photo(2)).transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera says: turn by 90° clockwise
    image.save(tmp_path / "photo.jpg", exif=exif, quality=95)
    assert len(predict(read_photo(tmp_path / "photo.jpg"), network)) == 2


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("shape", [(192, 192), (192, 137), (50, 64)])
def test_a_whole_picture_is_what_training_would_see(tmp_path, shape, channels):
    """Decoded, scaled and cropped as the loader does it, whatever kind of file it is."""
    face = Image.fromarray(drawn_faces(1, 0, size=192, channels=3)[0][0].movedim(0, 2).numpy()).resize(shape[::-1])
    kinds = {"a.png": face, "grey.png": face.convert("L"), "clear.png": face.convert("RGBA"), "palette.png": face.convert("P"), "cmyk.tiff": face.convert("CMYK"),
             "16.png": Image.fromarray(np.asarray(face.convert("L")).astype(np.uint16) * 257)}
    for name, image in kinds.items():
        image.save(tmp_path / name)
        assert np.array_equal(cut_out(read_photo(tmp_path / name), None, 48, channels)[0].numpy(), decode(tmp_path / name, 48, channels, fit=True)), name


def test_a_picture_of_unknown_range_is_named(tmp_path):
    Image.fromarray(np.asarray(Image.fromarray(group_photo(1)).convert("L")).astype(np.uint16) * 16).save(tmp_path / "12.png")
    with pytest.raises(PredictError, match="12.png is no picture that can be read .*under a quarter of white"):
        read_photo(tmp_path / "12.png")


def test_a_face_at_the_border_goes_on():
    photo = np.arange(100, dtype=np.uint8).reshape(10, 10)[..., None].repeat(3, 2)
    assert torch.equal(cut_out(photo, (-4, -4, 10), 10, 3)[0, 0, :5, :5], torch.zeros(5, 5, dtype=torch.uint8))


@pytest.mark.parametrize("damage, match", [
    (lambda b: b"", "no file of weights"), (lambda b: b"words", "no file of weights"), (lambda b: b[:len(b) // 2], "no file of weights"),
])
def test_torn_weights_are_named(tmp_path, weights, damage, match):
    (tmp_path / "w.safetensors").write_bytes(damage(weights.read_bytes()))
    with pytest.raises(PredictError, match=match):
        load_network(tmp_path / "w.safetensors")


@pytest.mark.parametrize("change", [
    lambda header: {}, lambda header: header | {"config": "{"}, lambda header: header | {"classes": json.dumps(["a", "b"])},
    lambda header: header | {"config": json.dumps(json.loads(header["config"]) | {"width": 0.1})}, lambda header: header | {"images": "[]"},
])
def test_weights_of_something_else_are_named(tmp_path, weights, network, change):
    header = {"classes": json.dumps(network.classes), "config": json.dumps(network.config), "images": json.dumps({"size": 48, "channels": 1})}
    save_file(load_file(weights), tmp_path / "w.safetensors", change(header))
    with pytest.raises(PredictError, match="not of a run of this package"):
        load_network(tmp_path / "w.safetensors")


def test_a_folded_network_says_what_the_run_measured(weights, network):
    data = load("drawn", train=80, valid=20, test=20)
    face = predict(data.test.images[3, 0].numpy()[..., None].repeat(3, 2), network, whole=True)[0]
    assert torch.equal(face.image, data.test.images[3])
    with np.load(weights.parent / "predictions.npz") as records:
        assert np.allclose(face.probabilities.numpy(), records["test_probabilities"][3], atol=1e-5)


@pytest.mark.parametrize("name, content", [("missing.jpg", None), ("text.jpg", b"words"), ("empty.png", b""), ("half.png", b"half")])
def test_pictures_that_are_none(tmp_path, name, content):
    if content == b"half":
        Image.fromarray(group_photo(1)).save(tmp_path / name)
        content = (tmp_path / name).read_bytes()[:5000]
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(PredictError, match=name):
        read_photo(tmp_path / name)


def test_a_picture_that_would_fill_the_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    Image.fromarray(group_photo(1)).save(tmp_path / "bomb.png")
    with pytest.raises(PredictError, match="no picture that can be read"):
        read_photo(tmp_path / "bomb.png")


def test_without_the_detector_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "skimage.feature", None)
    with pytest.raises(PredictError, match="pip install"):
        find_faces(group_photo(1))


def test_parameters_are_checked_and_the_photo_is_read_first(tmp_path):
    with pytest.raises(ConfigError, match="did you mean 'image'"):
        from_parameters({"imag": "x"}, Settings)
    with pytest.raises(PredictError, match="nowhere.jpg"):
        network_and_photo(Settings(image=str(tmp_path / "nowhere.jpg")))
