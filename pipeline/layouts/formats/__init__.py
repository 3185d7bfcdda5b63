"""Data layouts with a documented format: MSD, nnU-Net, BIDS, tables, DICOM folders."""
