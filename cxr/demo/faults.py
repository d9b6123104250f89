"""The faults that the demo plants, as the real sources have them; all of them come on top of the images asked for.

Names are fixed, whatever the seed, so that a test or a person can look each one up.
"""

# a download cut short
KERMANY_TRUNCATED = "chest_xray/train/PNEUMONIA/person1901_bacteria_4801.jpeg"
NIH_TRUNCATED = "00030001_000.png"

# byte-identical files under two patients, on both sides of the published train and test splits
KERMANY_TWICE = (
    ("chest_xray/train/NORMAL/IM-0901-0001.jpeg", "chest_xray/test/NORMAL/NORMAL2-IM-0902-0001.jpeg"),
    (
        "chest_xray/train/PNEUMONIA/person1903_bacteria_4803.jpeg",
        "chest_xray/test/PNEUMONIA/person1904_bacteria_4804.jpeg",
    ),
)

# what macOS leaves in a zip
KERMANY_JUNK = (
    "__MACOSX/._chest_xray",
    "__MACOSX/chest_xray/train/NORMAL/._IM-0115-0001.jpeg",
    "chest_xray/.DS_Store",
)

# rows whose image lies in an archive that was not downloaded
NIH_ROWS_WITHOUT_IMAGE = 25

# the picture of another source, shrunk and encoded anew; its class is the original's
COVID_COPIES = {
    "16901_1_1.jpg": ("nih", "00000001_000.png"),  # No Finding
    "16902_1_1.png": ("nih", "00000007_000.png"),  # Pneumonia
    "16903_1_1.jpg": ("nih", "00000010_000.png"),  # No Finding
    "16904_1_1.jpeg": ("nih", "00000025_000.png"),  # Pneumonia
    "16905_1_1.jpg": ("kermany", "chest_xray/train/NORMAL/IM-0115-0001.jpeg"),
    "16906_1_1.png": ("kermany", "chest_xray/train/PNEUMONIA/person1_bacteria_1.jpeg"),
}

# unusual but whole files that must be read: encoding -> file
COVID_ENCODINGS = {
    "16-bit": "16911_1_1.png",
    "rgba": "16912_1_1.png",
    "palette": "16913_1_1.png",
}
NIH_RGBA = "00030004_000.png"

# views and findings that are set aside
COVID_LATERALS = tuple(f"1692{n}_1_1.jpg" for n in range(6))
COVID_CT = tuple(f"1693{n}_1_1.png" for n in range(3))
COVID_TODO = tuple(f"1694{n}_1_1.jpeg" for n in range(3))
COVID_VIEW_UNKNOWN = "16945_1_1.jpeg"

# rows and files without their other half
COVID_ROWS_WITHOUT_IMAGE = ("16951_1_1.jpg", "16952_1_1.jpg", "16953_1_1.png")
COVID_VOLUMES = ("coronacases_org_001.nii.gz", "radiopaedia_org_covid-19-pneumonia-7_85703_0-dcm.nii.gz")
COVID_IMAGE_WITHOUT_ROW = "16961_1_1.jpg"
COVID_NOT_AN_IMAGE = "desktop.ini"
