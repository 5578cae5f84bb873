package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	pixels "image"
	"image/color"
	"image/png"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/vm-dataset/vm-dataset-pipeline/ops/dataset"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/sample"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/store"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// video is the one that the test generator writes: three frames.
var video = sync.OnceValue(func() []byte {
	source, err := os.ReadFile(filepath.Join("local", "testdata", "generate.py"))
	if err != nil {
		panic(err)
	}
	text := regexp.MustCompile(`(?s)VIDEO = base64.b64decode\(\s*"""(.*?)"""`).FindSubmatch(source)
	data, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(string(text[1])), ""))
	if err != nil {
		panic(err)
	}
	return data
})

// picture is a PNG whose pixels are a text's.
func picture(text string) []byte {
	sum := sha256.Sum256([]byte(text))
	m := pixels.NewNRGBA(pixels.Rect(0, 0, 4, 2))
	for i := range 8 {
		m.Set(i%4, i/4, color.NRGBA{sum[3*i], sum[3*i+1], sum[3*i+2], 255})
	}
	var b bytes.Buffer
	if err := png.Encode(&b, m); err != nil {
		panic(err)
	}
	return b.Bytes()
}

func hashOf(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// stored commits samples for real: their files or shard, then the receipt. The
// text of a sample is name, index and what.
func stored(t testing.TB, st *store.Store, generator string, r task.Range, format task.Format, what string,
	edits ...func(index int, files map[string][]byte)) store.Receipt {
	t.Helper()
	receipt := store.Receipt{Generator: generator, RunID: "r", RunSeed: 7, ChunkSize: r.Len(), ChunkStart: r.Start,
		Start: r.Start, End: r.End, Format: format, Domain: "d"}
	cell, err := taken(t.Context(), st, receipt)
	must(t, err)
	receipt.Epoch = cell.Epoch
	dir := t.TempDir()
	var list []sample.Sample
	for i := r.Start; i < r.End; i++ {
		text := fmt.Sprintf("%s %d %s", generator, i, what)
		files := map[string][]byte{"first_frame.png": picture(text), "prompt.txt": []byte(text)}
		for _, edit := range edits {
			edit(i, files)
		}
		s := sample.Sample{Index: i, ID: task.SampleID("d", i), Fingerprint: hashOf([]byte(text))}
		for _, name := range slices.Sorted(maps.Keys(files)) {
			file := filepath.Join(dir, fmt.Sprintf("%d-%d", i, len(s.Files)))
			must(t, os.WriteFile(file, files[name], 0o600))
			s.Files = append(s.Files, sample.File{Name: name, Path: file, Size: int64(len(files[name])),
				SHA256: hashOf(files[name])})
		}
		list = append(list, s)
		receipt.Samples = append(receipt.Samples, s)
	}
	if format == task.Tar {
		shard, err := st.PutShard(t.Context(), generator, task.Chunk{Cell: r, Keep: r}, cell.Epoch, list)
		must(t, err)
		receipt.Shard = &shard
	} else {
		must(t, st.PutFiles(t.Context(), generator, list))
	}
	must(t, st.Commit(t.Context(), cell, receipt, -1, false))
	must(t, st.Release(t.Context(), cell, true))
	return cell.Receipts[len(cell.Receipts)-1]
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// place puts an object where a sample's file stands.
func place(t *testing.T, st *store.Store, generator string, index int, name, text string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	must(t, os.WriteFile(path, []byte(text), 0o600))
	f := sample.File{Name: name, Path: path, Size: int64(len(text)), SHA256: hashOf([]byte(text))}
	must(t, st.PutFiles(t.Context(), generator, []sample.Sample{{ID: task.SampleID("d", index), Files: []sample.File{f}}}))
}

// bucket is the bucket for who tampers with it.
type bucket struct {
	t *testing.T
	*cloud
	name   string // of the generator
	chunks []store.Receipt
}

func (b *bucket) get(key string) []byte {
	b.t.Helper()
	data, err := b.store.Read(b.t.Context(), key)
	must(b.t, err)
	return data
}

func (b *bucket) put(key string, data []byte) {
	b.t.Helper()
	_, err := b.s3.PutObject(b.t.Context(), &s3.PutObjectInput{Bucket: aws.String(testBucket), Key: &key,
		Body: bytes.NewReader(data), ChecksumAlgorithm: types.ChecksumAlgorithmSha256})
	must(b.t, err)
}

func (b *bucket) remove(key string) {
	b.t.Helper()
	must(b.t, b.store.Delete(b.t.Context(), []string{key}))
}
func (b *bucket) truncate(key string) {
	b.t.Helper()
	data := b.get(key)
	b.put(key, data[:len(data)-1])
}

// flip changes one bit in the middle.
func (b *bucket) flip(key string) {
	b.t.Helper()
	data := b.get(key)
	data[len(data)/2] ^= 4
	b.put(key, data)
}

// flipOnDisk changes one bit behind the store's back.
func (b *bucket) flipOnDisk(key string) {
	b.t.Helper()
	path := filepath.Join(b.objects, filepath.FromSlash(key))
	data, err := os.ReadFile(path)
	must(b.t, err)
	data[len(data)/2] ^= 4
	must(b.t, os.WriteFile(path, data, 0o600))
}

func (b *bucket) duplicate(from, to string) { b.t.Helper(); b.put(to, b.get(from)) }
func (b *bucket) rename(from, to string) {
	b.t.Helper()
	b.duplicate(from, to)
	b.remove(from)
}

func (b *bucket) swap(one, other string) {
	b.t.Helper()
	first, second := b.get(one), b.get(other)
	b.put(one, second)
	b.put(other, first)
}

// file is the key of a file of a sample.
func (b *bucket) file(index int, name string) string {
	return task.DefaultDataset.FileKey(b.name, task.SampleID("d", index), name)
}

// edit changes a receipt's text.
func (b *bucket) edit(r store.Receipt, before, after string) {
	b.t.Helper()
	text := string(b.get(r.ReadFrom))
	if !strings.Contains(text, before) {
		b.t.Fatalf("%q is not in %s", before, text)
	}
	b.put(r.ReadFrom, []byte(strings.Replace(text, before, after, 1)))
}

// rebuild writes a shard anew from other members, and a receipt that has its hash.
func (b *bucket) rebuild(r store.Receipt, change func(members []member) []member) {
	b.t.Helper()
	data := archive(change(members(b.t, b.get(r.Shard.Key)))...)
	b.put(r.Shard.Key, data)
	r.Shard = &store.Object{Key: r.Shard.Key, Size: int64(len(data)), SHA256: hashOf(data)}
	b.rewrite(b.t, r)
}

// Each way to damage a bucket is found, and named for what it is; in a healthy
// bucket nothing is found. Both formats, every kind.
func TestSabotage(t *testing.T) {
	t.Parallel()
	c := newCloud(t)
	const (
		missing, longer, hash, undecodable = dataset.MissingObject, dataset.WrongSize, dataset.WrongHash, dataset.Undecodable
		badShard, stray, badReceipt        = dataset.BadShard, dataset.StrayObject, dataset.BadReceipt
	)
	broken := func(name string, data []byte) func(int, map[string][]byte) {
		return func(index int, files map[string][]byte) {
			if index == 6 {
				files[name] = data
			}
		}
	}
	// A PNG whose checksums are right and whose pixels cannot be had.
	noPixels := func() []byte {
		data := picture("x")
		at := bytes.Index(data, []byte("IDAT"))
		return repairCRC(append(slices.Clone(data[:at+4]), append(bytes.Repeat([]byte{9}, len(data)-at-4-16),
			data[len(data)-16:]...)...))
	}()
	noFrames := bytes.Replace(video(), []byte("stsz\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x03"),
		[]byte("stsz\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"), 1)
	both := []task.Format{task.Files, task.Tar}
	type found map[string]dataset.Kind // by key; %f 7 x is file x of sample 7, %s 1 the shard of chunk 1, %r 1 its receipt
	for _, test := range []struct {
		name     string
		formats  []task.Format
		write    func(int, map[string][]byte) // what the generator did wrong
		sabotage func(b *bucket)
		missing  []string
		found    found
		shallow  bool // found without --deep
	}{
		{name: "healthy", formats: both, sabotage: func(*bucket) {}, shallow: true},

		{name: "delete a picture", formats: both[:1], sabotage: func(b *bucket) { b.remove(b.file(3, "first_frame.png")) },
			found: found{"%f 3 first_frame.png": missing}, shallow: true},
		{name: "delete a sample", formats: both[:1], sabotage: func(b *bucket) {
			for _, name := range []string{"first_frame.png", "prompt.txt", "ground_truth.mp4"} {
				b.remove(b.file(3, name))
			}
		}, found: found{"%f 3 first_frame.png": missing, "%f 3 prompt.txt": missing, "%f 3 ground_truth.mp4": missing},
			shallow: true},
		{name: "delete a shard", formats: both[1:], sabotage: func(b *bucket) { b.remove(b.chunks[1].Shard.Key) },
			found: found{"%s 1": missing}, shallow: true},

		{name: "truncate a picture", formats: both[:1],
			sabotage: func(b *bucket) { b.truncate(b.file(3, "first_frame.png")) }, found: found{"%f 3 first_frame.png": longer},
			shallow: true},
		{name: "truncate a video", formats: both[:1], sabotage: func(b *bucket) { b.truncate(b.file(0, "ground_truth.mp4")) },
			found: found{"%f 0 ground_truth.mp4": longer}, shallow: true},
		{name: "empty a text", formats: both[:1], sabotage: func(b *bucket) { b.put(b.file(19, "prompt.txt"), nil) },
			found: found{"%f 19 prompt.txt": longer}, shallow: true},
		{name: "lengthen a text", formats: both[:1],
			sabotage: func(b *bucket) { b.put(b.file(19, "prompt.txt"), make([]byte, 100)) },
			found:    found{"%f 19 prompt.txt": longer}, shallow: true},
		{name: "truncate a shard", formats: both[1:], sabotage: func(b *bucket) { b.truncate(b.chunks[3].Shard.Key) },
			found: found{"%s 3": longer}, shallow: true},

		{name: "flip a bit of a picture", formats: both[:1],
			sabotage: func(b *bucket) { b.flip(b.file(3, "first_frame.png")) }, found: found{"%f 3 first_frame.png": hash}},
		{name: "flip a bit of a video", formats: both[:1],
			sabotage: func(b *bucket) { b.flip(b.file(3, "ground_truth.mp4")) }, found: found{"%f 3 ground_truth.mp4": hash}},
		{name: "flip a bit of a text", formats: both[:1], sabotage: func(b *bucket) { b.flip(b.file(3, "prompt.txt")) },
			found: found{"%f 3 prompt.txt": hash}},
		{name: "flip a bit of a shard", formats: both[1:], sabotage: func(b *bucket) { b.flip(b.chunks[0].Shard.Key) },
			found: found{"%s 0": hash}},
		{name: "flip bits on the disk", formats: both[:1], sabotage: func(b *bucket) {
			b.flipOnDisk(b.file(3, "prompt.txt"))
			b.flipOnDisk(b.file(4, "first_frame.png"))
			b.flipOnDisk(b.file(5, "ground_truth.mp4"))
		}, found: found{"%f 3 prompt.txt": hash, "%f 4 first_frame.png": hash, "%f 5 ground_truth.mp4": hash}},
		{name: "flip a bit of a shard on the disk", formats: both[1:],
			sabotage: func(b *bucket) { b.flipOnDisk(b.chunks[2].Shard.Key) }, found: found{"%s 2": hash}},

		{name: "swap texts of one length", formats: both[:1],
			sabotage: func(b *bucket) { b.swap(b.file(3, "prompt.txt"), b.file(7, "prompt.txt")) },
			found:    found{"%f 3 prompt.txt": hash, "%f 7 prompt.txt": hash}},
		{name: "swap a text and a video", formats: both[:1],
			sabotage: func(b *bucket) { b.swap(b.file(3, "prompt.txt"), b.file(3, "ground_truth.mp4")) },
			found:    found{"%f 3 prompt.txt": longer, "%f 3 ground_truth.mp4": longer}, shallow: true},

		{name: "rename a file", formats: both[:1],
			sabotage: func(b *bucket) { b.rename(b.file(3, "prompt.txt"), b.file(3, "promt.txt")) },
			found:    found{"%f 3 prompt.txt": missing, "%f 3 promt.txt": stray}, shallow: true},
		{name: "rename a shard", formats: both[1:], sabotage: func(b *bucket) {
			b.rename(b.chunks[1].Shard.Key, strings.Replace(b.chunks[1].Shard.Key, "_00000009_", "_00000010_", 1))
		}, found: found{"%s 1": missing, "data/v1/NAME/NAME_00000005_00000010_e1.tar.gz": stray}, shallow: true},
		{name: "duplicate a file", formats: both[:1],
			sabotage: func(b *bucket) { b.duplicate(b.file(3, "prompt.txt"), b.file(4, "copy of prompt.txt")) },
			found:    found{"%f 4 copy of prompt.txt": stray}, shallow: true},
		{name: "duplicate files to other places", formats: both, sabotage: func(b *bucket) {
			from := b.chunks[0].Objects()[0]
			b.duplicate(from, "data/v1/"+b.name+"/e_00000004/prompt.txt")
			b.duplicate(from, "data/v1/"+b.name+"/notes.txt")
			b.duplicate(from, "data/v1/"+b.name+"/d_00000004/deeper/prompt.txt")
			b.duplicate(from, "data/v1/"+b.name+"/d_4/prompt.txt")
		}, found: found{"data/v1/NAME/e_00000004/prompt.txt": stray, "data/v1/NAME/notes.txt": stray,
			"data/v1/NAME/d_00000004/deeper/prompt.txt": stray, "data/v1/NAME/d_4/prompt.txt": stray}, shallow: true},
		{name: "duplicate a shard", formats: both[1:], sabotage: func(b *bucket) {
			b.duplicate(b.chunks[0].Shard.Key, "data/v1/"+b.name+"/"+b.name+"_00000000_00000003.tar.gz")
		}, found: found{"data/v1/NAME/NAME_00000000_00000003.tar.gz": stray}, shallow: true},
		{name: "a file beside shards", formats: both[1:],
			sabotage: func(b *bucket) { b.put(b.file(3, "prompt.txt"), []byte("x")) }, found: found{"%f 3 prompt.txt": stray},
			shallow: true},
		{name: "what is beyond the range is not looked at", formats: both, sabotage: func(b *bucket) {
			b.put(b.file(20, "prompt.txt"), []byte("x"))
			b.duplicate(b.chunks[0].ReadFrom, strings.Replace(b.chunks[0].ReadFrom, "00000000_00000004", "00000020_00000024", 1))
		}, shallow: true},

		{name: "delete a receipt", formats: both[1:], sabotage: func(b *bucket) { b.remove(b.chunks[1].ReadFrom) },
			missing: []string{"5-9"}, found: found{"%s 1": stray}, shallow: true},
		{name: "truncate a receipt", formats: both[1:], sabotage: func(b *bucket) { b.truncate(b.chunks[1].ReadFrom) },
			missing: []string{"5-9"}, found: found{"%s 1": stray, "%r 1": badReceipt}, shallow: true},
		{name: "flip a bit of a receipt on the disk", formats: both[1:],
			sabotage: func(b *bucket) { b.flipOnDisk(b.chunks[1].ReadFrom) }, missing: []string{"5-9"},
			found: found{"%s 1": stray, "%r 1": badReceipt}, shallow: true},
		{name: "empty a receipt", formats: both[1:], sabotage: func(b *bucket) { b.put(b.chunks[1].ReadFrom, nil) },
			missing: []string{"5-9"}, found: found{"%s 1": stray, "%r 1": badReceipt}, shallow: true},
		{name: "swap receipts", formats: both[1:],
			sabotage: func(b *bucket) { b.swap(b.chunks[1].ReadFrom, b.chunks[2].ReadFrom) }, missing: []string{"5-14"},
			found: found{"%s 1": stray, "%s 2": stray, "%r 1": badReceipt, "%r 2": badReceipt}, shallow: true},
		{name: "rename a receipt", formats: both[1:], sabotage: func(b *bucket) {
			b.rename(b.chunks[1].ReadFrom, strings.Replace(b.chunks[1].ReadFrom, "00000009", "00000008", 1))
		}, missing: []string{"5-9"}, found: found{"%s 1": stray, "receipts/v1/NAME/00000005_00000008.json": badReceipt},
			shallow: true},
		{name: "rename a receipt to something else", formats: both[1:],
			sabotage: func(b *bucket) { b.rename(b.chunks[1].ReadFrom, "receipts/v1/"+b.name+"/old.json") },
			missing:  []string{"5-9"}, found: found{"%s 1": stray, "receipts/v1/NAME/old.json": badReceipt}, shallow: true},
		{name: "duplicate a receipt", formats: both, sabotage: func(b *bucket) {
			b.duplicate(b.chunks[1].ReadFrom, strings.Replace(b.chunks[1].ReadFrom, "00000009", "00000008", 1))
			b.duplicate(b.chunks[1].ReadFrom, "receipts/v1/"+b.name+"/copy of 00000005_00000009.json")
		}, found: found{"receipts/v1/NAME/00000005_00000008.json": badReceipt,
			"receipts/v1/NAME/copy of 00000005_00000009.json": badReceipt}, shallow: true},
		{name: "a receipt with a hash that is not the file's", formats: both[:1], sabotage: func(b *bucket) {
			h := b.chunks[0].Samples[2].Files[0].SHA256
			b.edit(b.chunks[0], h, h[:63]+map[bool]string{true: "1", false: "0"}[h[63] == '0'])
		}, found: found{"%f 2 first_frame.png": hash}},
		{name: "a receipt of another generator", formats: both[1:],
			sabotage: func(b *bucket) { b.edit(b.chunks[1], `"generator":"`+b.name, `"generator":"maze`) },
			missing:  []string{"5-9"}, found: found{"%s 1": stray, "%r 1": badReceipt}, shallow: true},
		{name: "a receipt that lacks a sample", formats: both[1:], sabotage: func(b *bucket) {
			r := b.chunks[1]
			r.Samples = r.Samples[:4]
			b.rewrite(b.t, r)
		}, missing: []string{"5-9"}, found: found{"%s 1": stray, "%r 1": badReceipt}, shallow: true},
		{name: "a receipt with a sample twice", formats: both[1:], sabotage: func(b *bucket) {
			r := b.chunks[1]
			r.Samples[4] = r.Samples[3]
			b.rewrite(b.t, r)
		}, missing: []string{"5-9"}, found: found{"%s 1": stray, "%r 1": badReceipt}, shallow: true},

		{name: "a member is left out", formats: both[1:],
			sabotage: func(b *bucket) { b.rebuild(b.chunks[1], func(m []member) []member { return m[1:] }) },
			found:    found{"%s 1": badShard}},
		{name: "a member is added", formats: both[1:], sabotage: func(b *bucket) {
			b.rebuild(b.chunks[1], func(m []member) []member { x := m[0]; x.Name += "x"; return append(m, x) })
		}, found: found{"%s 1": badShard}},
		{name: "a member is there twice", formats: both[1:],
			sabotage: func(b *bucket) { b.rebuild(b.chunks[1], func(m []member) []member { return append(m, m[0]) }) },
			found:    found{"%s 1": badShard}},
		{name: "members are swapped", formats: both[1:], sabotage: func(b *bucket) {
			b.rebuild(b.chunks[1], func(m []member) []member { m[0].Name, m[3].Name = m[3].Name, m[0].Name; return m })
		}, found: found{"%s 1": badShard}},
		{name: "a member is a link", formats: both[1:], sabotage: func(b *bucket) {
			b.rebuild(b.chunks[1], func(m []member) []member {
				m[0].Typeflag, m[0].Linkname, m[0].body = '2', "/etc/passwd",
					""
				return m
			})
		}, found: found{"%s 1": badShard}},

		{name: "the generator's picture has no pixels", formats: both, write: broken("first_frame.png", noPixels),
			sabotage: func(*bucket) {}, found: found{"%f 6 first_frame.png": undecodable}},
		{name: "the generator's picture is none", formats: both, write: broken("first_frame.png", []byte("hello")),
			sabotage: func(*bucket) {}, found: found{"%f 6 first_frame.png": undecodable}},
		{name: "the generator's video has no frames", formats: both, write: broken("ground_truth.mp4", noFrames),
			sabotage: func(*bucket) {}, found: found{"%f 6 ground_truth.mp4": undecodable}},
		{name: "a task_id of another sample", formats: both,
			write: broken("metadata.json", []byte(`[{"task_id": "d_00000005", "x": NaN}]`)), sabotage: func(*bucket) {},
			found: found{"%f 6 metadata.json": undecodable}},
		{name: "a metadata.json that nobody reads", formats: both, write: broken("metadata.json", []byte(`{"task_id": `)),
			sabotage: func(*bucket) {}, found: found{"%f 6 metadata.json": undecodable}},
		{name: "its own task_id", formats: both, write: broken("metadata.json", []byte(`{"x": NaN, "task_id": "d_00000006"}`)),
			sabotage: func(*bucket) {}, shallow: true},
		{name: "a file in a folder is gone", formats: both[:1], write: broken("frames/0.png", picture("x")),
			sabotage: func(b *bucket) { b.remove(b.file(6, "frames/0.png")) }, found: found{"%f 6 frames/0.png": missing},
			shallow: true},
		{name: "files in folders", formats: both, write: broken("frames/0.png", picture("x")), sabotage: func(*bucket) {},
			shallow: true},
		{name: "the generator's video is cut off", formats: both, write: broken("ground_truth.mp4", video()[:len(video())-40]),
			sabotage: func(*bucket) {}, found: found{"%f 6 ground_truth.mp4": undecodable}},

		{name: "superseded", formats: both, sabotage: func(b *bucket) {
			// With other files, in the other format, and in other cuts: what they replace counts no more.
			for n, format := range []task.Format{task.Files, task.Tar, task.Files} {
				indices := task.Chunk{Keep: task.Range{Start: 8 - n, End: 12}}.Kept()
				for _, chunk := range (task.Task{Indices: indices, ChunkSize: 5, Attempt: n + 1}).Chunks() {
					layer{chunk, format, strings.Repeat("longer", n)}.store(b.t, b.cloud, b.name)
				}
			}
		}, shallow: true},
	} {
		for _, format := range test.formats {
			name := strings.ReplaceAll(test.name, " ", "-") + "-" + string(format)
			name = strings.NewReplacer("'", "", ",", "").Replace(name)
			t.Run(name, func(t *testing.T) {
				b := &bucket{t: t, cloud: c, name: name}
				edits := []func(int, map[string][]byte){func(_ int,
					files map[string][]byte) {
					files["ground_truth.mp4"] = video()
				}}
				if test.write != nil {
					edits = append(edits, test.write)
				}
				for start := 0; start < 20; start += 5 {
					b.chunks = append(b.chunks, stored(t, c.store, name, task.Range{Start: start, End: start + 5}, format, "",
						edits...))
				}
				test.sabotage(b)
				want := map[string]dataset.Kind{}
				for key, kind := range test.found {
					want[b.spell(key, format)] = kind
				}
				for _, deep := range []bool{false, true} {
					check := &dataset.Checker{Store: c.store, Deep: deep}
					report, err := check.Run(t.Context(), task.Run{Samples: 20, Generators: []task.RunGenerator{{Name: name}}})
					must(t, err)
					g := report.Generators[0]
					got := map[string]dataset.Kind{}
					for _, d := range g.Examples {
						got[d.Key] = d.Kind
					}
					expected := want
					if !deep && !test.shallow {
						expected = map[string]dataset.Kind{}
					}
					if !maps.Equal(got, expected) || !slices.Equal(g.Missing, test.missing) {
						t.Errorf("deep %v: found %v, missing %v", deep, g.Examples, g.Missing)
					}
					if whole := len(expected)+len(test.missing) == 0; g.Complete != whole || report.Complete != whole {
						t.Errorf("deep %v: whole is %v", deep, g.Complete)
					}
					if expected := 20 - 5*len(test.missing); len(test.missing) < 2 && g.Samples != expected &&
						test.name != "swap receipts" {
						t.Errorf("deep %v: %d samples, want %d", deep, g.Samples, expected)
					}
				}
			})
		}
	}
}

// spell writes out a key of the table.
func (b *bucket) spell(key string, format task.Format) string {
	var n int
	var name string
	if got, _ := fmt.Sscanf(key, "%%f %d %s", &n, &name); got == 2 {
		if _, rest, _ := strings.Cut(key, fmt.Sprintf("%d ", n)); format == task.Files || strings.HasPrefix(rest, "prompt") {
			return b.file(n, rest)
		}
		return b.chunks[n/5].Shard.Key
	}
	if got, _ := fmt.Sscanf(key, "%%s %d", &n); got == 1 {
		return b.chunks[n].Shard.Key
	}
	if got, _ := fmt.Sscanf(key, "%%r %d", &n); got == 1 {
		return b.chunks[n].ReadFrom
	}
	return strings.ReplaceAll(key, "NAME", b.name)
}
