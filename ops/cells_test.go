package main

import (
	"bytes"
	"context"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/vm-dataset/vm-dataset-pipeline/worker/store"
	"github.com/vm-dataset/vm-dataset-pipeline/worker/task"
)

// taken takes the cell that a receipt is of, as a worker does.
func taken(ctx context.Context, st *store.Store, r store.Receipt) (*store.Cell, error) {
	start := r.Start / r.ChunkSize * r.ChunkSize
	by := store.Holder{RequestID: "test", Deadline: time.Now().Add(time.Hour)}
	return st.Take(ctx, r.Generator, task.Range{Start: start, End: start + r.ChunkSize}, by,
		func(*store.Cell) bool { return true })
}

// commitReceipt commits a receipt whose objects are there, or need not be.
func commitReceipt(ctx context.Context, st *store.Store, r store.Receipt) error {
	c, err := taken(ctx, st, r)
	if err != nil {
		return err
	}
	r.Epoch = c.Epoch
	return st.Commit(ctx, c, r, -1, true)
}

// rewrite puts a receipt in the place of the one that it is known as, whatever it says.
func (c *cloud) rewrite(t testing.TB, r store.Receipt) {
	t.Helper()
	cell, err := c.store.Cell(t.Context(), r.ReadFrom)
	must(t, err)
	for i, there := range cell.Receipts {
		if there.ID() == r.ID() {
			cell.Receipts[i] = r
		}
	}
	text, err := cell.Encode()
	must(t, err)
	_, err = c.s3.PutObject(t.Context(), &s3.PutObjectInput{Bucket: aws.String(testBucket), Key: &r.ReadFrom,
		Body: bytes.NewReader(text)})
	must(t, err)
}
