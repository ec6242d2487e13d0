import pytest

from export.importing.limits import check_integer, check_size
from export.quantization.errors import ConversionError
from tests.export.tiny import Net, tiny


def test_a_network_that_has_no_room_on_a_device_is_refused_by_its_size_as_int8() -> None:
    check_size(bytes(100), 4, "m.h5")
    with pytest.raises(ConversionError, match=r"m.h5: as int8 it has about 40 MiB; a device takes up to 32"):
        check_size(bytes(160 * 2**20), 4, "m.h5")
    with pytest.raises(ConversionError, match=r"about 33 MiB"):
        check_size(bytes(33 * 2**20), 1, "m.tflite")


def test_every_op_that_stays_in_float_is_listed() -> None:
    check_integer(tiny(), "m.h5")

    def floating(net: Net) -> None:
        for tensor in net.main.tensors[3:5]:  # what the convolution gives, and the pooling
            tensor.type = 0  # FLOAT32

    with pytest.raises(ConversionError) as refused:
        check_integer(tiny(floating), "m.h5")
    assert [line.strip() for line in str(refused.value).splitlines()[1:-1]] == [
        "op 0, CONV_2D (features)",
        "op 1, MAX_POOL_2D (pooled)",
        "op 2, MEAN (mean)",
    ]
