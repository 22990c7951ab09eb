"""What --help prints, taken apart."""

import re

OF_CONFIG = ["Run", "Data", "Network", "Precision and devices", "Optimisation", "Evaluation"]


GROUPS = {
    "train_main.py": OF_CONFIG,
    "eval_main.py": ["A prediction file, without a network", *OF_CONFIG],
    "scripts/benchmark.py": ["Benchmark", *OF_CONFIG],
    "scripts/browse.py": ["People", "Page"],
    "scripts/check_gpu.py": ["Check"],
    "scripts/collapse_study.py": ["Study"],
    "scripts/decoder_ceilings.py": ["People"],
    "scripts/draw_records.py": ["People", "Picture"],
    "scripts/export.py": ["Network", "File", "Joints from heatmaps", "Verification"],
    "scripts/export_torch.py": ["Network", "File"],
    "scripts/import_torch.py": ["Files", "Not in the file"],
    "scripts/list_gpu_kernels.py": ["File"],
    "scripts/make_mpii_validation.py": [],
    "scripts/make_submission.py": ["Files"],
    "scripts/make_tfrecords.py": [
        *("Data", "Records", "Stored crops", "--dataset=coco, yolo, labelme only"),
    ],
    "scripts/plot_runs.py": ["Curves"],
    "scripts/predict.py": ["Network", "People and pictures", "Output"],
    "scripts/score_predictions.py": ["Files"],
}


def entries(page: str) -> dict[str, str]:
    """Flag -> what stands behind it, on one line."""
    matches = re.findall(r"^  --(?:\[no\])?(\w+)(.*\n(?:   .*\n)*)", page, re.MULTILINE)
    return {name: " ".join(text.split()) for name, text in matches}
