"""What leaves the house: decisions on new images, and a folder that needs no code of ours."""
