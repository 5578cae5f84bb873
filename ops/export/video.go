package export

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"math/big"
	"path"
	"regexp"
	"strconv"
	"strings"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/sample"
)

// VideoOptions say how videos are encoded again. What is zero stays as it is.
type VideoOptions struct {
	Width, Height int // pixels, even; what has another shape is fitted in, with black beside it
	FPS           float64
	Frames        int // spread evenly over the video, from its first frame to its last
}

var videoRule = regexp.MustCompile(`^h264(?::(\d+)x(\d+))?(?:@(\d+(?:\.\d+)?))?(?:x(\d+))?$`)

// ParseVideo reads h264[:WxH][@FPS][xFRAMES]; of an empty rule it returns nil.
func ParseVideo(rule string) (*VideoOptions, error) {
	if rule == "" {
		return nil, nil //nolint:nilnil // no rule, no options
	}
	m := videoRule.FindStringSubmatch(rule)
	if m == nil {
		return nil, fmt.Errorf("%q must be h264[:WxH][@FPS][xFRAMES], such as h264:832x480@16x81", rule)
	}
	o := &VideoOptions{}
	o.Width, _ = strconv.Atoi(m[1])
	o.Height, _ = strconv.Atoi(m[2])
	o.FPS, _ = strconv.ParseFloat(cmp.Or(m[3], "0"), 64)
	o.Frames, _ = strconv.Atoi(m[4])
	switch {
	case m[1] != "" && (o.Width < 16 || o.Height < 16 || o.Width > 8192 || o.Height > 8192 || o.Width%2+o.Height%2 > 0):
		return nil, fmt.Errorf("%q: width and height must be even numbers from 16 to 8192", rule)
	case m[3] != "" && (o.FPS < 1 || o.FPS > 240):
		return nil, fmt.Errorf("%q: the rate must be from 1 to 240 frames a second", rule)
	case m[4] != "" && (o.Frames < 1 || o.Frames > 100_000):
		return nil, fmt.Errorf("%q: the number of frames must be from 1 to 100000", rule)
	}
	return o, nil
}

// EncodedName is the name of a file in an export with this --video.
func EncodedName(rule, name string) string {
	if ext := path.Ext(name); rule != "" && sample.IsVideo(name) {
		return strings.TrimSuffix(name, ext) + ".mp4"
	}
	return name
}

// quality is the same for all: hardly to be told from the original.
var quality = map[string]string{"preset": "medium", "crf": "17"}

// filters returns the filters of libavfilter for a video, and the rate of what they let pass.
func (o *VideoOptions) filters(m Media) (list [][2]string, rate string, err error) {
	if m.Frames == 0 || m.FPS == 0 {
		return nil, "", errors.New("its number of frames is not known")
	}
	fps := cmp.Or(o.FPS, m.FPS)
	if o.Frames > 0 && o.FPS == 0 && m.Seconds > 0 {
		fps = float64(o.Frames) / m.Seconds
	}
	rate = rational(fps)
	switch {
	case o.Frames > 0:
		// In microseconds, because a video's own clock may tick once a frame. The rate picks for each of its frames the
		// latest that is there by then, from the first to the last; to show that one, something has to follow it.
		each := float64(o.Frames-1) / float64(max(1, m.Frames-1)) // output frames from one frame to the next
		list = append(list, [2]string{"settb", "AVTB"}, [2]string{"setpts", fmt.Sprintf("N*%.9f/(%s)/TB", each, rate)},
			[2]string{"tpad", fmt.Sprintf("stop_mode=clone:stop=%d", int(m.FPS/fps)+2)},
			[2]string{"fps", "fps=" + rate + ":round=up"}, [2]string{"trim", fmt.Sprintf("end_frame=%d", o.Frames)},
			[2]string{"setpts", "PTS-STARTPTS"})
	case o.FPS > 0:
		list = append(list, [2]string{"fps", "fps=" + rate})
	}
	if o.Width > 0 {
		size := fmt.Sprintf("w=%d:h=%d", o.Width, o.Height)
		list = append(list, [2]string{"scale", size + ":force_original_aspect_ratio=decrease"},
			[2]string{"pad", size + ":x=(ow-iw)/2:y=(oh-ih)/2"}, [2]string{"setsar", "1"})
	} else {
		list = append(list, [2]string{"pad", "w=ceil(iw/2)*2:h=ceil(ih/2)*2"})
	}
	return append(list, [2]string{"format", "yuv420p"}), rate, nil
}

// check compares the number of frames with the one that was asked for, or with the original's. At another rate it may
// differ by what the original's last frame lasts, and one.
func (o *VideoOptions) check(original, encoded Media) error {
	want, off := cmp.Or(o.Frames, original.Frames), 0
	if o.Frames == 0 && o.FPS > 0 {
		ratio := o.FPS / original.FPS
		want, off = int(math.Round(float64(original.Frames)*ratio)), 1+int(math.Ceil(ratio))
	}
	if n := encoded.Frames; n < want-off || n > want+off {
		return fmt.Errorf("it came out with %d frames and not %d: it may be damaged", n, want)
	}
	return nil
}

// rational is a frame rate as a fraction: 29.97 and the like are what they stand for.
func rational(fps float64) string {
	if near := math.Round(fps * 1.001); math.Abs(fps*1.001-near) < 1e-4 && math.Abs(fps-math.Round(fps)) > 1e-6 {
		return fmt.Sprintf("%d/1001", int(near)*1000)
	}
	return new(big.Rat).SetFrac64(int64(math.Round(fps*1e6)), 1e6).RatString()
}
