package export_test

import (
	"context"
	"net/http"
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

// A cell whose samples are in more shards than there are connections: a shard gives its own back after its last sample.
func TestManyShardsInCell(t *testing.T) {
	const samples = 8
	g := maze
	g.Samples, g.Chunk = samples, samples
	texts := g.Files
	g.Files = func(i int) map[string]string { // so large that no shard is read to its end ahead
		files := texts(i)
		files["ground_truth.mp4"] = random(i, 1<<20)
		return files
	}
	b := newBucket(t)
	b.commit(t, "v1", task.Tar, g)
	dir := t.TempDir()
	for i := 1; i < samples; i++ { // of each shard, only the first sample stays
		c, err := b.store.Take(t.Context(), g.Name, task.Range{End: g.Chunk}, store.Holder{RequestID: "repair",
			Deadline: time.Now().Add(time.Hour)}, func(*store.Cell) bool { return true })
		check(t, err)
		var list []sample.Sample
		var indices []int
		for n := i; n < samples; n++ {
			list, indices = append(list, g.Write(t, dir, n)), append(indices, n)
		}
		r := g.NewReceipt("v1", task.Tar, c, list)
		shard, err := b.store.PutShard(t.Context(), g.Name, task.Chunk{Cell: task.Range{End: g.Chunk}, Keep: r.Range()},
			c.Epoch, list)
		check(t, err)
		r.Shard, r.Indices = &shard, indices
		check(t, b.store.Commit(t.Context(), c, r, -1, true))
	}
	st := store.New(s3.New(s3.Options{BaseEndpoint: aws.String(b.URL), Region: "us-east-2",
		HTTPClient:  &http.Client{Transport: &http.Transport{MaxConnsPerHost: 3}},
		Credentials: credentials.NewStaticCredentialsProvider("a", "b", "")}, store.ClientOptions), "bucket")
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	s, err := exported(ctx, t, export.Export{Store: st, Format: export.Webdataset(), Workers: 1,
		Options: export.Options{ShardSize: 1e9}}, t.TempDir())
	if err != nil || s.Samples != samples {
		t.Errorf("%+v, %v", s, err)
	}
}
