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
	text := regexp.MustCompile(`(?s)VIDEO = a2b_base64\(\s*"""(.*?)"""`).FindSubmatch(source)
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
