"""The folder that ``nnUNet_extTrainer`` points at. nnU-Net imports every module in it: keep it at one."""
