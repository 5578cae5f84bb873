"""ffmpeg.py LINK: links to an ffmpeg."""
import os
import sys

import imageio_ffmpeg

os.symlink(imageio_ffmpeg.get_ffmpeg_exe(), sys.argv[1])
