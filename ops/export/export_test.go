package export_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/vm-dataset/vm-dataset-pipeline/ops/export"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/sample"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/store"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// formats are all of them.
var formats = export.Formats

// small are options with which every generator has several parts.
var small = export.Options{ShardSize: 60_000, Split: "train=0.7,test=0.3"}

// differences names the files in which two exports differ.
func differences(a, b map[string]string) (list []string) {
	for name := range a {
		if text, ok := b[name]; !ok || text != a[name] {
			list = append(list, name)
		}
	}
	for name := range b {
		if _, ok := a[name]; !ok {
			list = append(list, name)
		}
	}
	slices.Sort(list)
	return list
}

// The same samples give the same files: stored as files or in shards, read from the server or
// from its folder, by one worker or by many, to a folder or to a bucket.
func TestSameBytes(t *testing.T) {
	t.Parallel()
	b, shards := newBucket(t), newBucket(t)
	files := b.all(t, "v1", task.Files)
	tarred := shards.all(t, "v1", task.Tar)
	for name, format := range formats {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			first := t.TempDir()
			s, err := exported(t.Context(), t, export.Export{Store: files, Format: format(), Options: small, Workers: 1}, first)
			check(t, err)
			want := content(t, first)
			if s.Samples != 44 || s.Splits["train"]+s.Splits["test"] != 44 || s.Splits["test"] < 4 || s.Files != len(want)-1 {
				t.Errorf("%+v", s)
			}
			checkSums(t, first)
			for what, e := range map[string]export.Export{
				"many workers":      {Store: files, Workers: 8},
				"from its folder":   {Store: files, Folder: b.Folder},
				"shards":            {Store: tarred},
				"shards, in folder": {Store: tarred, Folder: shards.Folder},
			} {
				dir := t.TempDir()
				e.Format, e.Options = format(), small
				_, err := exported(t.Context(), t, e, dir)
				check(t, err)
				if list := differences(want, content(t, dir)); len(list) > 0 {
					t.Errorf("%s: %v differ", what, list)
				}
			}
			to := export.OpenPrefix(store.New(b.Client(nil), "bucket"), "exports/"+name)
			e := export.Export{Store: files, Format: format(), Options: small, To: to, Say: t.Logf,
				Progress: func(export.Progress) {}}
			_, err = e.Run(t.Context())
			check(t, err)
			if list := differences(want, content(t, filepath.Join(b.Folder, "exports", name))); len(list) > 0 {
				t.Errorf("in a bucket: %v differ", list)
			}
			r, err := export.Verify(t.Context(), to, func(export.Progress) {})
			if err != nil || r.Wrong != 0 || r.Files != s.Files {
				t.Errorf("in a bucket: %+v, %v", r, err)
			}
		})
	}
}

// checkSums has sha256sum check an export.
func checkSums(t *testing.T, dir string) {
	t.Helper()
	cmd := exec.Command("sha256sum", "--check", "--quiet", "--strict", "SHA256SUMS")
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("sha256sum: %v\n%s", err, out)
	}
}

// mortal kills its process in the middle of the n-th thing that it writes.
type mortal struct {
	export.Destination
	left *atomic.Int64
}

func (m mortal) die() {
	if m.left.Add(-1) == 0 {
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {}
	}
}

func (m mortal) Create(ctx context.Context, name string, size int64, write func(io.Writer) error) error {
	m.die()
	err := m.Destination.Create(ctx, name, size, func(w io.Writer) error { return write(dying{w, m}) })
	m.die()
	return err
}

func (m mortal) Commit(ctx context.Context, name string, write func(io.Writer) error) error {
	m.die()
	err := m.Destination.Commit(ctx, name, func(w io.Writer) error { return write(dying{w, m}) })
	m.die()
	return err
}

type dying struct {
	io.Writer
	mortal
}

func (d dying) Write(p []byte) (int, error) {
	n, err := d.Writer.Write(p[:len(p)/2])
	d.die()
	if err != nil {
		return n, err
	}
	more, err := d.Writer.Write(p[n:])
	return n + more, err
}

// child is the process that TestKilledExport kills.
func child() {
	endpoint, name, dir := os.Getenv("EXPORT_CHILD"), os.Getenv("EXPORT_FORMAT"), os.Getenv("EXPORT_TO")
	left, _ := strconv.ParseInt(os.Getenv("EXPORT_WRITES"), 10, 64)
	client := s3.New(s3.Options{BaseEndpoint: &endpoint, Region: "us-east-2", HTTPClient: store.HTTPClient(nil),
		Credentials: credentials.NewStaticCredentialsProvider("a", "b", "")}, store.ClientOptions)
	st := store.New(client, "bucket")
	var to export.Destination
	var err error
	if prefix, ok := strings.CutPrefix(dir, "s3://bucket/"); ok {
		to = export.OpenPrefix(st, prefix)
	} else if to, err = export.OpenFolder(dir); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	m := mortal{to, new(atomic.Int64)}
	m.left.Store(left)
	e := export.Export{Store: st, Format: formats[name](), Options: small, To: m,
		Say: func(string, ...any) {}, Progress: func(export.Progress) {}}
	s, err := e.Run(context.Background())
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println(s.Resumed)
	if text, err := os.ReadFile("/proc/self/status"); err == nil {
		fmt.Print(string(text))
	}
	os.Exit(0)
}

// An export that is killed again and again, wherever it is, goes on without the parts that it
// had finished, and ends as one that nobody disturbed.
func TestKilledExport(t *testing.T) {
	t.Parallel()
	b := newBucket(t)
	st := b.all(t, "v1", task.Files)
	for _, test := range []struct {
		format, to string
		slow       int // how slowly the number of writes until the next kill grows
	}{{"manifest", "", 1}, {"webdataset", "s3://bucket/killed", 24}, {"parquet", "", 24},
		{"vbvr", "s3://bucket/vbvr", 10}} {
		t.Run(test.format, func(t *testing.T) {
			t.Parallel()
			undisturbed, dir := t.TempDir(), test.to
			_, err := exported(t.Context(), t, export.Export{Store: st, Format: formats[test.format](), Options: small},
				undisturbed)
			check(t, err)
			if dir == "" {
				dir = t.TempDir()
			}
			kills := 0
			for ; ; kills++ {
				cmd := exec.Command(os.Args[0])
				// More each time, or an export of large parts would never end.
				cmd.Env = append(os.Environ(), "EXPORT_CHILD="+b.URL, "EXPORT_FORMAT="+test.format, "EXPORT_TO="+dir,
					fmt.Sprint("EXPORT_WRITES=", 3+kills*kills/test.slow))
				out, err := cmd.CombinedOutput()
				if err == nil {
					if resumed, _ := strconv.Atoi(strings.Fields(string(out))[0]); resumed == 0 {
						t.Errorf("nothing was resumed: %s", out)
					}
					break
				}
				exit, _ := errors.AsType[*exec.ExitError](err)
				if exit == nil || !exit.Sys().(syscall.WaitStatus).Signaled() {
					t.Fatalf("after %d kills: %v: %s", kills, err, out)
				}
			}
			t.Logf("killed %d times", kills)
			is := strings.Replace(dir, "s3://bucket", b.Folder, 1)
			if list := differences(content(t, undisturbed), content(t, is)); kills < 20 || len(list) > 0 {
				t.Errorf("after %d kills %v differ", kills, list)
			}
		})
	}
}

// What is in the place already is kept: the same export, finished or not, goes on, and
// anything else is refused.
func TestPlace(t *testing.T) {
	t.Parallel()
	b := newBucket(t)
	b.commit(t, "v1", task.Files, maze)
	dir := t.TempDir()
	e := export.Export{Store: b.store, Format: export.Webdataset(), Options: small}
	_, err := exported(t.Context(), t, e, dir)
	check(t, err)
	before := content(t, dir)
	s, err := exported(t.Context(), t, e, dir)
	if err != nil || !s.Already {
		t.Errorf("again: %+v, %v", s, err)
	}
	other := e
	other.Options.Split = ""
	refused(t, other, dir, "holds something else: an export with other options")
	other = e
	other.Format = export.Folder()
	refused(t, other, dir, "holds something else: an export in the format webdataset")
	b.commit(t, "v1", task.Files, chess)
	refused(t, e, dir, "holds something else: an export of other samples: the dataset has changed since")
	if list := differences(before, content(t, dir)); len(list) > 0 {
		t.Errorf("%v differ", list)
	}
	check(t, os.Remove(filepath.Join(dir, "SHA256SUMS")))
	check(t, os.RemoveAll(filepath.Join(dir, "data")))
	refused(t, e, dir, "holds something else: README.md")

	to, err := export.OpenFolder(t.TempDir())
	check(t, err)
	defer to.Close()
	if _, err := export.OpenFolder(to.String()); err == nil || !strings.Contains(err.Error(), "is under way") {
		t.Errorf("two at once: %v", err)
	}
}

func refused(t *testing.T, e export.Export, dir, want string) {
	t.Helper()
	_, err := exported(t.Context(), t, e, dir)
	if err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("%v, want %q", err, want)
	}
}

// Files that are missing, changed or not of the export are named.
func TestVerify(t *testing.T) {
	t.Parallel()
	b := newBucket(t)
	b.commit(t, "v1", task.Files, maze)
	dir := t.TempDir()
	_, err := exported(t.Context(), t, export.Export{Store: b.store, Format: export.Webdataset(), Options: small}, dir)
	check(t, err)
	verify := func() string {
		from, err := export.ReadFolder(dir)
		check(t, err)
		defer from.Close()
		r, err := export.Verify(t.Context(), from, func(export.Progress) {})
		if err != nil {
			return err.Error()
		}
		if len(r.Problems) != r.Wrong {
			t.Errorf("%+v", r)
		}
		return strings.Join(r.Problems, "; ")
	}
	if got := verify(); got != "" {
		t.Errorf("untouched: %s", got)
	}
	shards := shardsOf(content(t, dir), maze.Name)
	check(t, os.Remove(filepath.Join(dir, shards[1])))
	text, err := os.ReadFile(filepath.Join(dir, shards[0]))
	check(t, err)
	text[len(text)/2] ^= 1
	check(t, os.WriteFile(filepath.Join(dir, shards[0]), text, 0o644))
	check(t, os.WriteFile(filepath.Join(dir, "data", "more.tar"), nil, 0o644))
	check(t, os.WriteFile(filepath.Join(dir, ".gitattributes"), nil, 0o644))
	check(t, os.WriteFile(filepath.Join(dir, "data", "train.tar.idx"), nil, 0o644)) // of Energon
	want := fmt.Sprintf("%s was changed; %s is missing; data/more.tar is not of this export", shards[0], shards[1])
	if got := verify(); got != want {
		t.Errorf("%s\nwant %s", got, want)
	}
	check(t, os.Remove(filepath.Join(dir, "SHA256SUMS")))
	if got := verify(); !strings.Contains(got, "SHA256SUMS") {
		t.Errorf("unfinished: %s", got)
	}
}

// An incomplete dataset is refused, and exported with --partial, which says what is missing.
func TestIncomplete(t *testing.T) {
	t.Parallel()
	b := newBucket(t)
	b.commit(t, "v1", task.Files, maze, task.Range{End: 12}, task.Range{Start: 13, End: 20})
	b.commit(t, "v1", task.Files, chess)
	dir := t.TempDir()
	e := export.Export{Store: b.store, Format: export.Webdataset(), Options: small}
	_, err := exported(t.Context(), t, e, dir)
	missing, ok := errors.AsType[*export.IncompleteError](err)
	if !ok || missing.Missing != 6 ||
		missing.Error() != "dataset v1 is incomplete: 6 samples of maze-task-data-generator are missing" {
		t.Errorf("%v", err)
	}
	e.Options.Generators = []string{chess.Name}
	_, err = exported(t.Context(), t, e, t.TempDir()) // which is complete
	check(t, err)
	e.Options.Generators, e.Options.Partial = nil, true
	s, err := exported(t.Context(), t, e, dir)
	check(t, err)
	readme := content(t, dir)["README.md"]
	if want := "maze-task-data-generator: browsers do not play 19 of its videos; --video h264 encodes them again"; !slices.Contains(s.Notes, want) {
		t.Errorf("%q", s.Notes)
	}
	if !maps.Equal(s.Missing, map[string]int{maze.Name: 6}) || s.Samples != 31 ||
		!strings.Contains(readme, "12-12") || !strings.Contains(readme, "20-24") {
		t.Errorf("%+v\n%s", s, readme)
	}
}

// A file that is not what its receipt says ends the export and is named.
func TestDamaged(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		format task.Format
		hurt   func(t *testing.T, b *bucket)
		want   string
	}{
		"another byte": {task.Files, func(t *testing.T, b *bucket) {
			put(t, b, "data/v1/maze-task-data-generator/maze_00000003/prompt.txt", "Solve maze 4.\n")
		}, "data/v1/maze-task-data-generator/maze_00000003/prompt.txt is not what its receipt says: its SHA-256 differs"},
		"shorter": {task.Files, func(t *testing.T, b *bucket) {
			put(t, b, "data/v1/maze-task-data-generator/maze_00000003/prompt.txt", "Solve")
		}, "data/v1/maze-task-data-generator/maze_00000003/prompt.txt has 5 bytes, its receipt says 14"},
		"gone": {task.Files, func(t *testing.T, b *bucket) {
			check(t, b.store.Delete(t.Context(), []string{"data/v1/maze-task-data-generator/maze_00000024/ground_truth.mp4"}))
		}, "data/v1/maze-task-data-generator/maze_00000024/ground_truth.mp4 is not in the bucket"},
		"no shard": {task.Tar, func(t *testing.T, b *bucket) {
			put(t, b, "data/v1/maze-task-data-generator/maze-task-data-generator_00000010_00000019_e1.tar.gz", "nothing")
		}, "_00000010_00000019_e1.tar.gz is no gzip file"},
		"another shard": {task.Tar, func(t *testing.T, b *bucket) {
			_, err := b.Client(nil).CopyObject(t.Context(), &s3.CopyObjectInput{Bucket: aws.String("bucket"),
				CopySource: aws.String("bucket/data/v1/maze-task-data-generator/maze-task-data-generator_00000000_00000009_e1.tar.gz"),
				Key:        aws.String("data/v1/maze-task-data-generator/maze-task-data-generator_00000010_00000019_e1.tar.gz")})
			check(t, err)
		}, `_00000010_00000019_e1.tar.gz holds "maze_00000000/final_frame.png", which its receipt does not name`},
		"cells that overlap": {task.Files, func(t *testing.T, b *bucket) {
			c, err := b.store.Take(t.Context(), maze.Name, task.Range{Start: 5, End: 15}, store.Holder{RequestID: "r",
				Deadline: time.Now().Add(time.Hour)}, func(*store.Cell) bool { return true })
			check(t, err)
			list := []sample.Sample{maze.Write(t, t.TempDir(), 5), maze.Write(t, t.TempDir(), 6)}
			check(t, b.store.Commit(t.Context(), c, maze.NewReceipt("v1", task.Files, c, list), -1, true))
		}, "receipts/v1/maze-task-data-generator/00000005_00000014.json cannot be trusted: it overlaps another"},
		"a cell": {task.Files, func(t *testing.T, b *bucket) {
			put(t, b, "receipts/v1/maze-task-data-generator/00000000_00000009.json", "{}")
		}, "receipts/v1/maze-task-data-generator/00000000_00000009.json cannot be read"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBucket(t)
			b.commit(t, "v1", test.format, maze)
			test.hurt(t, b)
			_, err := exported(t.Context(), t, export.Export{Store: b.store, Format: export.Webdataset(), Options: small},
				t.TempDir())
			if damage, ok := errors.AsType[*export.DamageError](err); !ok || !strings.Contains(damage.Error(), test.want) {
				t.Errorf("%v, want %s", err, test.want)
			}
		})
	}
}

// --where, --per-generator and --generator choose samples.
func TestChosen(t *testing.T) {
	t.Parallel()
	b := newBucket(t)
	for _, format := range []task.Format{task.Files, task.Tar} {
		st := b.all(t, task.Dataset(format), format)
		for _, test := range []struct {
			options export.Options
			want    string // samples by generator, or the error
		}{
			{export.Options{Where: "difficulty >= 3"}, "maze-task-data-generator 10"},
			{export.Options{Where: "difficulty == 1", PerGenerator: 3}, "maze-task-data-generator 3"},
			{export.Options{Where: `parameters.fen in ["2", "11"]`}, "O-11_chess.data-generator 2"},
			{export.Options{Where: `metadata[0].a.b[1] == 2.5 and metadata[0].i < 4`}, "odd 4"},
			{export.Options{PerGenerator: 11}, "O-11_chess.data-generator 11, maze-task-data-generator 11, odd 7"},
			{export.Options{Generators: []string{"odd"}}, "odd 7"},
			{export.Options{Where: "difficulty > 9"}, `--where "difficulty > 9": no sample is like that`},
			{export.Options{Where: "difficulty >"}, `--where "difficulty >": unexpected token EOF (1:12)`},
			{export.Options{Where: "difficulty + 1"},
				`--where "difficulty + 1": for maze_00000000 of maze-task-data-generator it comes to 1 and not to true or false`},
			{export.Options{Where: "difficulty contains \"a\" or task_id > 5"},
				`--where "difficulty contains \"a\" or task_id > 5": for maze_00000000 of maze-task-data-generator it fails with `},
			{export.Options{Where: "seed % 2 == 0"}, "O-11_chess.data-generator 6"},
			{export.Options{Where: `now() > date("2020-01-01")`},
				`--where "now() > date(\"2020-01-01\")": for chess_00000000 of O-11_chess.data-generator it fails with ` +
					"invalid operation: cannot call nil"},
		} {
			dir := t.TempDir()
			_, err := exported(t.Context(), t, export.Export{Store: st, Format: export.Folder(), Options: test.options}, dir)
			counts := map[string]int{}
			for name, text := range content(t, dir) {
				if strings.HasSuffix(name, "/prompt.txt") {
					counts[map[string]string{"S": maze.Name, "M": chess.Name, "G": odd.Name}[text[:1]]]++
				}
			}
			var got []string
			for _, name := range slices.Sorted(maps.Keys(counts)) {
				got = append(got, fmt.Sprint(name, " ", counts[name]))
			}
			if err != nil {
				got = []string{err.Error()}
			}
			if !strings.HasPrefix(strings.Join(got, ", "), test.want) {
				t.Errorf("%s, %+v: %v, want %s", format, test.options, got, test.want)
			}
		}
	}
}
