"""The networks whose frozen layers become features: a plain table, and how to build one.

Nothing here imports Keras before a network is built. To add one of `keras.applications`, add a row;
weight files and MD5 hashes are those that it fetches itself (keras/src/applications/*.py). `c3d`
looks at clips of 16 frames; `pixels[:SIZE]` is no network and keeps the frames themselves.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import re
from collections.abc import Iterator
from typing import Any

from framebank.features.errors import UsageError
from framebank.features.network.own_files import FORMS as OWN_FORMS
from framebank.features.tensorflow_import import import_tensorflow

PIXELS = "pixels"
PIXELS_SIZE = 112  # where none is given
_PIXELS_SIZES = range(8, 1025)
KERAS_FILES = "https://storage.googleapis.com/tensorflow/keras-applications"


@dataclasses.dataclass(frozen=True)
class Backbone:
    """One network: uint8[b, h, w, c=3] RGB frames in, float32[b, d] features out.

    One with a `clip_length` takes that many frames at once, uint8[b, frames, h, w, c], and steps on
    by `clip_stride`; `resize`, `sample` and `dtype` are its defaults.
    `application` is its name in `keras.applications`, "" of one of our own; `layer` the default
    layer (`avg_pool` is the global average over the last feature map); `preprocessing` "scale_-1_1"
    (x / 127.5 − 1), "caffe_bgr_mean" or "sports1m_bgr_mean" (BGR minus that of ImageNet or
    Sports-1M). `weights_md5` is None where Keras publishes no hash. `include_top` builds the
    classifier's dense layers too. `random_gain` is a factor on random kernels that keeps features
    within float16; another gain gives other random features.
    """

    name: str
    application: str
    input_size: int
    layer: str
    feature_dim: int
    preprocessing: str
    weights_path: str
    weights_md5: str | None
    include_top: bool = False
    random_gain: float = 1.0
    clip_length: int = 1
    clip_stride: int = 1
    resize: str = "stretch"
    sample: str = "fps=1"
    dtype: str = "float16"

    @property
    def is_pixels(self) -> bool:
        return self.name.startswith(PIXELS)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Return the shape of an image that it takes, (h, w, c=3), or of a clip of them."""
        frames = (self.clip_length,) if self.clip_length > 1 else ()
        return (*frames, self.input_size, self.input_size, 3)

    @property
    def weights_file(self) -> str:
        return self.weights_path.rsplit("/", 1)[1]

    @property
    def weights_url(self) -> str:
        return f"{KERAS_FILES}/{self.weights_path}"

    def build(self) -> Any:
        """Return the `keras.Model` with float32 weights that mean nothing yet, channels last."""
        import_tensorflow()
        import keras

        size = self.input_size
        pooling = None if self.include_top else "avg"
        with plain_keras():
            if self.name == "c3d":
                from framebank.features.network.c3d import build_c3d

                return build_c3d(self.clip_length, size)
            return getattr(keras.applications, self.application)(
                include_top=self.include_top,
                weights=None,
                pooling=pooling,
                input_shape=(size, size, 3),
            )


@contextlib.contextmanager
def plain_keras() -> Iterator[None]:
    """Build with float32 and channels last, whatever ~/.keras/keras.json or the caller has set."""
    import keras

    layout, policy = keras.config.image_data_format(), keras.config.dtype_policy()
    keras.config.set_image_data_format("channels_last")
    keras.config.set_dtype_policy("float32")
    try:
        yield
    finally:
        keras.config.set_image_data_format(layout)
        keras.config.set_dtype_policy(policy)


@contextlib.contextmanager
def without_values() -> Iterator[None]:
    """Build models whose variables have no values, for whoever has those of a file: random ones
    take a second, and gigabytes of VGG. Where a Keras has its parts elsewhere, they are made."""
    import keras

    try:
        from keras.src.backend.common import global_state
    except ImportError:
        yield
        return
    name = "uninitialized_variables"
    before = list(global_state.get_global_attribute(name) or [])
    try:
        with keras.StatelessScope(initialize_variables=False):
            yield
    finally:
        # Keras would make the values of all of them at the end of its next scope.
        global_state.set_global_attribute(name, before)


BACKBONES: dict[str, Backbone] = {
    row.name: row
    for row in (
        Backbone(
            "inception_v3", "InceptionV3", 299, "avg_pool", 2048, "scale_-1_1",
            "inception_v3/inception_v3_weights_tf_dim_ordering_tf_kernels_notop.h5",
            "bcbd6486424b2319ff4ef7d526e38f63",
        ),
        Backbone(
            "resnet50", "ResNet50", 224, "avg_pool", 2048, "caffe_bgr_mean",
            "resnet/resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5",
            "4d473c1dd8becc155b73f8504c6f6626", random_gain=0.7,
        ),
        Backbone(
            "vgg16", "VGG16", 224, "fc2", 4096, "caffe_bgr_mean",
            "vgg16/vgg16_weights_tf_dim_ordering_tf_kernels.h5",
            "64373286793e3c8b2b4e3219cbf3544b", include_top=True,
        ),
        Backbone(
            "vgg19", "VGG19", 224, "fc2", 4096, "caffe_bgr_mean",
            "vgg19/vgg19_weights_tf_dim_ordering_tf_kernels.h5",
            "cbe5617147190e668d6c5d5026f83318", include_top=True,
        ),
        Backbone(
            "xception", "Xception", 299, "avg_pool", 2048, "scale_-1_1",
            "xception/xception_weights_tf_dim_ordering_tf_kernels_notop.h5",
            "b0042744bf5b25fce3cb969f33bebb97", random_gain=0.7,
        ),
        Backbone(
            "mobilenet_v2", "MobileNetV2", 224, "avg_pool", 1280, "scale_-1_1",
            "mobilenet_v2/mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224_no_top.h5",
            None, random_gain=0.8,
        ),
        Backbone(
            "resnet50_v2", "ResNet50V2", 224, "avg_pool", 2048, "scale_-1_1",
            "resnet/resnet50v2_weights_tf_dim_ordering_tf_kernels_notop.h5",
            "fac2f116257151a9d068a22e544a4917", random_gain=0.7,
        ),
        # Frames of 128 x 171 whose middle is seen, all of them, in clips that do not overlap.
        Backbone(
            "c3d", "", 112, "fc6", 4096, "sports1m_bgr_mean", "", None,
            clip_length=16, clip_stride=16, resize="128x171", sample="every=1",
        ),
    )
}  # fmt: skip


def find_backbone(name: str) -> Backbone:
    """Return the row called `name`; raises UsageError that lists all names."""
    if name in BACKBONES:
        return BACKBONES[name]
    if name.partition(":")[0] == PIXELS:
        return _pixels(name)
    raise UsageError(
        "no such backbone",
        got=repr(name),
        expected=" | ".join([*BACKBONES, f"{PIXELS}[:SIZE]", OWN_FORMS]),
        todo=near_matches(name, list(BACKBONES)),
    )


def _pixels(name: str) -> Backbone:
    digits = name.partition(":")[2] if ":" in name else str(PIXELS_SIZE)
    if not (digits.isascii() and digits.isdigit() and int(digits[:9]) in _PIXELS_SIZES):
        raise UsageError(
            "pixels need a size",
            got=repr(name),
            expected=f"{PIXELS}:SIZE with a side from {_PIXELS_SIZES[0]} to {_PIXELS_SIZES[-1]}",
        )
    size = int(digits)
    return Backbone(
        f"{PIXELS}:{size}", "", size, "picture", 3 * size**2, "none", "", None, dtype="jpeg"
    )


def check_layer(backbone: str, layer: str) -> int:
    """Return the width d of the features that `layer` of `backbone` gives.

    The default layer costs nothing; any other builds the network once (seconds, imports Keras).
    Raises UsageError for an unknown backbone or layer and for an output that cannot be a feature.
    """
    row = find_backbone(backbone)
    if layer == row.layer:
        return row.feature_dim
    if row.is_pixels:
        raise UsageError("pixels have no layers", got=repr(layer), todo="leave --layer out")
    return int(feature_output(row, row.build(), layer).shape[-1])


def named_layers(model: Any) -> dict[str, Any]:
    """Return the layers of a built backbone by the names that a fresh process would give them.

    Keras numbers the layers it names itself (`conv2d_17`) through the life of a process; here they
    are numbered anew, in the order in which they were made. The global average pooling that ends a
    network without its classifier is called `avg_pool`, as it is with the classifier.
    """
    automatic: dict[str, list[tuple[int, Any]]] = {}
    for layer in model.layers:
        base = snake_case(type(layer).__name__)
        match = re.fullmatch(rf"{re.escape(base)}(?:_(\d+))?", layer.name)
        if match:
            automatic.setdefault(base, []).append((int(match[1] or 0), layer))
    fresh = {}
    for base, numbered in automatic.items():
        for rank, (_, layer) in enumerate(sorted(numbered, key=lambda pair: pair[0])):
            fresh[id(layer)] = base if rank == 0 else f"{base}_{rank}"
    layers = {fresh.get(id(layer), layer.name): layer for layer in model.layers}
    last = model.layers[-1]
    if snake_case(type(last).__name__) == "global_average_pooling2d":
        layers = {"avg_pool" if layer is last else name: layer for name, layer in layers.items()}
    return layers


def feature_output(backbone: Backbone, model: Any, layer: str) -> Any:
    """Return the symbolic output float32[b, d] of `layer`, averaged over h and w where it has them.

    Raises UsageError for an unknown layer (with near matches) and for outputs of another rank.
    """
    import keras

    layers = named_layers(model)
    if layer not in layers:
        raise UsageError(
            f"{backbone.name} has no such layer",
            got=repr(layer),
            expected=f"one of its {len(layers)} layers, by default {backbone.layer}",
            todo=near_matches(layer, list(layers)),
        )
    output = layers[layer].output
    shape = getattr(output, "shape", ())
    if len(shape) == 5 and None not in shape[1:]:
        return keras.layers.GlobalAveragePooling3D(data_format="channels_last")(output)
    if len(shape) == 4 and None not in shape[1:]:
        return keras.layers.GlobalAveragePooling2D(data_format="channels_last")(output)
    if len(shape) == 2:
        return output
    raise UsageError(
        f"layer {layer} of {backbone.name} gives no feature",
        got=f"an output of shape {tuple(shape)}",
        expected="float[b, d] or float[b, h, w, d]",
    )


def near_matches(name: str, names: list[str]) -> str:
    """Return what may have been meant by `name`, in words."""
    near = difflib.get_close_matches(name, names, n=5, cutoff=0.5) or names[-5:]
    return f"take for example {', '.join(near)}"


def snake_case(name: str) -> str:
    """Return Keras's own spelling of a class name as a layer name (Conv2D → conv2d)."""
    name = re.sub(r"\W+", "", name)
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()
