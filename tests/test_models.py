"""Every network: its size, its head's exact heatmap, its input convention, and the way to an exported model."""

import os
from pathlib import Path

import h5py
import numpy as np
import pytest

from cxr.errors import CxrError
from cxr.params import HeadParams, TrainParams, load_params

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras

from cxr.models import build_model, in_float32, load_model, min_side, save_model
from cxr.models.heads import Head
from cxr.models.squeezenet import squeezenet
from cxr.models.transfer import BACKBONES, CONVENTIONS, freeze
from cxr.models.weights import load_file
from cxr.release.model import OUTPUTS, OpenVinoModel

SHIPPED = load_params().train
REAL = Path(__file__).parents[2] / "shared/real"
GAP = HeadParams(pool="gap", dense=[], dropout=0.3, output="softmax")
SQUEEZENET = REAL / "weights/squeezenet_weights_tf_dim_ordering_tf_kernels_notop.h5"


def settings(model: str, head: HeadParams = GAP, **others) -> TrainParams:
    return SHIPPED.model_copy(update={"model": model, "head": head, "widths": [8, 16, 16], **others})


def noise(size: int, n: int = 8) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, size, size, 1)).astype(np.uint8)


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def test_the_network_of_nam_has_its_published_size():
    head = HeadParams(pool="flatten", dense=[128], dropout=0.2, output="sigmoid")
    model = build_model(settings("nam2022", head), 128, 2)
    assert model.count_params() == 558_849
    assert sum(int(np.prod(weight.shape)) for weight in model.trainable_weights) == 557_761


def test_the_residual_network_is_small():
    assert build_model(settings("residual", widths=[32, 64, 128, 192]), 128, 3).count_params() <= 1_500_000


@pytest.mark.parametrize("pool", ["gap", "max", "flatten"])
@pytest.mark.parametrize("dense", [[], [7], [7, 5]])
@pytest.mark.parametrize(("output", "classes"), [("softmax", 3), ("sigmoid", 2)])
def test_the_heatmap_is_the_logit_by_place(pool, dense, output, classes):
    head = Head(classes, pool, dense, 0.4, output)
    rng = np.random.default_rng(1)
    features = rng.normal(size=(6, 3, 4, 5)).astype(np.float32)
    features[0] = 1  # every place is a maximum
    head(features)
    for weight in head.weights:  # biases too
        weight.assign(rng.normal(size=weight.shape))
    answer = {name: np.asarray(value) for name, value in head(features).items()}
    assert answer["heatmap"].shape == (6, 3, 4, classes)
    assert np.abs(answer["heatmap"].mean(axis=(1, 2)) - answer["logits"]).max() < 1e-4
    if output == "sigmoid":
        z = answer["embedding"] @ np.asarray(head.out.kernel) + np.asarray(head.out.bias)
        assert np.abs(softmax(answer["logits"])[:, 1:] - 1 / (1 + np.exp(-z))).max() < 1e-5


def test_the_heatmap_follows_the_gradient():
    """Where nothing is pooled away, evidence is feature times gradient, summed over channels."""
    import tensorflow as tf

    head = Head(3, "flatten", [7], 0.0, "softmax")
    features = tf.random.stateless_normal((4, 3, 3, 5), seed=(1, 2))
    with tf.GradientTape() as tape:
        tape.watch(features)
        logit = head(features)["logits"][:, 1]
    found = np.asarray(head(features)["heatmap"])[..., 1] / 9
    expected = np.asarray(tf.reduce_sum(features * tape.gradient(logit, features), axis=-1))
    found, expected = (each - each.mean(axis=(1, 2), keepdims=True) for each in (found, expected))  # but for biases
    assert np.abs(found - expected).max() < 1e-5


@pytest.mark.parametrize("name", BACKBONES)
def test_a_backbone_sees_what_its_publisher_fed_it(name):
    backbone = BACKBONES[name]
    rgb = np.repeat(noise(4), 3, axis=-1).astype(np.float32)
    scale, offset = CONVENTIONS[backbone.convention]
    found = np.asarray(keras.layers.Rescaling(scale, offset)(rgb))
    if backbone.convention == "raw":  # these networks begin with their own scaling
        expected = rgb
    else:
        expected = keras.applications.imagenet_utils.preprocess_input(rgb.copy(), mode=backbone.convention)
    assert np.abs(found - expected).max() < 1e-4


DEEP = ("resnet101", "resnet152")  # the code of resnet50; a third of the whole test's time
EVERY = [pytest.param(name, marks=pytest.mark.slow if name in DEEP else ()) for name in BACKBONES]


@pytest.mark.heavy
@pytest.mark.parametrize("name", ["cnn", "residual", "nam2022", "small", *EVERY])
def test_every_network_learns_and_is_exported(name, tmp_path):
    keras.utils.clear_session()
    params = settings(name)
    size = max(min_side(params), 32)
    model = build_model(params, size, 3)
    x = noise(size)
    trained = keras.Model(model.input, model.output["probabilities"])
    trained.compile(keras.optimizers.SGD(1e-4), "categorical_crossentropy", run_eagerly=True)
    before = [np.asarray(weight) for weight in model.trainable_weights]
    assert np.isfinite(trained.train_on_batch(x, np.eye(3)[np.arange(len(x)) % 3]))
    assert all((np.asarray(w) != b).any() for w, b in zip(model.trainable_weights[-2:], before[-2:], strict=True))
    expected = {key: np.asarray(value) for key, value in model(x, training=False).items()}
    assert sorted(expected) == sorted(OUTPUTS)
    assert np.abs(softmax(expected["heatmap"].mean(axis=(1, 2))) - expected["probabilities"]).max() < 1e-4
    model.export(str(tmp_path / "model.xml"), format="openvino", verbose=False)
    found = OpenVinoModel(tmp_path / "model.xml")(x[..., 0])
    for key in OUTPUTS:
        scale = max(1, np.abs(expected[key]).max())
        assert np.abs(getattr(found, key) - expected[key]).max() <= 1e-3 * scale, key


@pytest.mark.parametrize(("name", "dense"), [("residual", []), ("residual", [7]), ("squeezenet", [7, 5])])
def test_what_was_trained_in_bfloat16_answers_in_float32(name, dense):
    params = settings(name, GAP.model_copy(update={"dense": dense}), precision="bfloat16")
    model = build_model(params, 32, 3)
    assert keras.config.dtype_policy().name == "float32"
    trained = keras.Model(model.input, model.output["probabilities"])
    trained.compile(keras.optimizers.SGD(1e-3), "categorical_crossentropy", run_eagerly=True)
    assert np.isfinite(trained.train_on_batch(noise(32), np.eye(3)[np.arange(8) % 3]))
    answer = {key: np.asarray(value) for key, value in model(noise(32), training=False).items()}
    # the head computes in float32, or the logits would be rounded to three digits
    assert np.abs(softmax(answer["heatmap"].mean(axis=(1, 2))) - answer["probabilities"]).max() < 1e-5
    same = in_float32(model, params, 3)
    assert {layer.compute_dtype for layer in same.layers[1:]} <= {"float32", "uint8"}
    low, full = (np.asarray(each(noise(32), training=False)["probabilities"]) for each in (model, same))
    assert 0 < np.abs(low - full).max() < 0.05


@pytest.mark.heavy
@pytest.mark.parametrize(("name", "precision"), [("cnn", "bfloat16"), ("squeezenet", "float32")])
def test_equal_weights_are_an_equal_file_and_load_as_they_were(tmp_path, name, precision):
    """Of models built one behind the other, whose layers lie elsewhere in memory."""
    models = []
    for folder in ("first", "second"):
        keras.utils.set_random_seed(1)
        keras.utils.clear_session()  # or the second one's layers are counted on
        models.append(build_model(settings(name, precision=precision), 32, 3))
        (tmp_path / folder).mkdir()
        save_model(models[-1], tmp_path / folder / "model.keras")
    files = [tmp_path / folder / "model.keras" for folder in ("first", "second")]
    assert files[0].read_bytes() == files[1].read_bytes()
    assert list(files[0].parent.iterdir()) == [files[0]]
    expected = models[0].predict(noise(32), verbose=0)
    for load in (load_model, keras.saving.load_model):
        loaded = load(files[0])
        assert same(loaded.get_weights(), models[0].get_weights())
        found = loaded.predict(noise(32), verbose=0)
        assert all((found[key] == expected[key]).all() for key in OUTPUTS)
    models[1].trainable_weights[0].assign_add(models[1].trainable_weights[0] * 0 + 1)
    save_model(models[1], files[1])
    assert files[0].read_bytes() != files[1].read_bytes()


@pytest.mark.parametrize("name", ["nam2022", "inceptionv3", "xception", "vgg16", "cnn"])
def test_a_square_too_small_is_one_sentence(name):
    least = min_side(settings(name))
    with pytest.raises(CxrError, match=rf"ingest.pixels.size: {name} takes images of {least} pixels and more, found"):
        build_model(settings(name), least - 1, 3)
    build_model(settings(name), least, 3)


def test_a_sigmoid_node_for_three_classes_is_one_sentence():
    with pytest.raises(CxrError, match=r"train.head.output: a sigmoid node separates two classes, the task has 3"):
        build_model(settings("cnn", GAP.model_copy(update={"output": "sigmoid"})), 32, 3)


# ---- weights -------------------------------------------------------------------------------------------------------


def write_as_keras1(path: Path, network: keras.Model, swap: str = "") -> None:
    """As Keras 1 wrote HDF5: names of its own, layers without weights listed too. `swap`: a layer with other shapes."""
    with h5py.File(path, "w") as file:
        names = []
        for i, layer in enumerate(network.layers):
            name = f"old_{i}"
            names.append(name.encode())
            group = file.create_group(name)
            arrays = [w.T if layer.name == swap else w for w in layer.get_weights()]
            group.attrs["weight_names"] = [f"uniform{i}_{k}".encode() for k in range(len(arrays))]
            for k, array in enumerate(arrays):
                group[f"uniform{i}_{k}"] = array
        file.attrs["layer_names"] = names


def same(a: list[np.ndarray], b: list[np.ndarray]) -> bool:
    return all((x == y).all() for x, y in zip(a, b, strict=True))


def test_a_file_with_older_names_is_matched_layer_by_layer(tmp_path):
    theirs = squeezenet((64, 64, 3))
    write_as_keras1(tmp_path / "old.h5", theirs)
    own = squeezenet((64, 64, 3))
    assert not same(own.get_weights(), theirs.get_weights())
    load_file(own, tmp_path / "old.h5", "squeezenet")
    assert same(own.get_weights(), theirs.get_weights())


@pytest.mark.parametrize("how", ["weights.h5", "keras"])
def test_what_keras_writes_today_is_read(how, tmp_path):
    model = build_model(settings("squeezenet"), 32, 3)
    backbone = model.get_layer("backbone")
    path = tmp_path / f"mine.{how}"
    model.save(path) if how == "keras" else backbone.save_weights(path)
    again = build_model(settings("squeezenet", weights=str(path)), 32, 2).get_layer("backbone")
    assert same(again.get_weights(), backbone.get_weights())


def test_the_weights_of_another_network_are_refused_and_change_nothing(tmp_path):
    network = squeezenet((64, 64, 3))
    before = network.get_weights()
    write_as_keras1(tmp_path / "swapped.h5", network, swap="fire5_expand3x3")
    write_as_keras1(tmp_path / "half.h5", keras.Model(network.input, network.get_layer("fire4_concat").output))
    BACKBONES["mobilenetv2"].build(include_top=False, weights=None, input_shape=(32, 32, 3)).save_weights(
        tmp_path / "mobile.weights.h5"
    )
    (tmp_path / "page.h5").write_text("<html>not found</html>")
    sentences = {
        "swapped.h5": r"is not of squeezenet: its layer old_\d+ has weights of 128x32x3x3, 128 where fire5",
        "half.h5": r"is not of squeezenet: 10 layers with weights, not 25",
        "mobile.weights.h5": r"mobile.weights.h5 is not of squeezenet: ",
        "page.h5": r"page.h5 is no file of weights that Keras wrote",
        "absent.h5": r"train.weights: there is no file .*absent.h5; name one, or `none` or `imagenet`",
    }
    for name, sentence in sentences.items():
        with pytest.raises(CxrError, match=sentence):
            load_file(network, tmp_path / name, "squeezenet")
        assert same(network.get_weights(), before), name


@pytest.mark.skipif(not SQUEEZENET.exists(), reason="the real weights are not here")
def test_the_real_imagenet_weights_load():
    model = build_model(settings("squeezenet", weights=str(SQUEEZENET)), 64, 2)
    with h5py.File(SQUEEZENET) as file:
        kernel = np.asarray(file["fire9/expand3x3"]["uniform25"])
    assert (np.asarray(model.get_layer("backbone").get_layer("fire9_expand3x3").kernel) == kernel).all()


def test_imagenet_weights_without_network_or_cache_are_one_sentence(tmp_path, monkeypatch):
    from urllib.error import URLError

    def no_network(*_, **__):
        raise URLError("Network is unreachable")

    monkeypatch.setattr("keras.src.utils.file_utils.urlretrieve", no_network)
    monkeypatch.setattr("keras.src.utils.file_utils.config.keras_home", lambda: str(tmp_path))
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    with pytest.raises(
        CxrError, match=rf"ImageNet weights of vgg16 are not in {tmp_path}/models and cannot be fetched"
    ):
        build_model(settings("vgg16", weights="imagenet"), 32, 3)
    with pytest.raises(CxrError, match=r"Keras has no ImageNet weights of squeezenet; name a file"):
        build_model(settings("squeezenet", weights="imagenet"), 32, 3)


@pytest.mark.parametrize(("depth", "frozen"), [(0, 0), (3, 3), ("fire4_concat", 16), ("all", 37), (999, 37)])
def test_freezing_by_depth_and_by_name(depth, frozen):
    model = build_model(settings("squeezenet"), 32, 3)
    assert freeze(model, depth) == frozen
    assert [layer.trainable for layer in model.get_layer("backbone").layers] == [i >= frozen for i in range(37)]
    assert model.get_layer("head").trainable


def test_freezing_by_a_wrong_name_is_one_sentence():
    with pytest.raises(
        CxrError, match=r"train.freeze: the backbone has no layer 'fire99'; its 37 layers begin with conv1"
    ):
        freeze(build_model(settings("squeezenet"), 32, 3), "fire99")


def test_scratch_networks_take_no_weights():
    with pytest.raises(ValueError, match="cnn is trained from scratch: weights must be none and freeze 0"):
        TrainParams.model_validate(SHIPPED.model_dump() | {"weights": "imagenet"})
