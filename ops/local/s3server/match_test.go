package s3server

import (
	"bytes"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
)

// Of many that change one object by If-Match, each starts from what another one has
// left: nothing that was acknowledged is lost.
func TestIfMatchRace(t *testing.T) {
	for _, sidecar := range []bool{false, true} {
		t.Run(fmt.Sprintf("sidecar %v", sidecar), func(t *testing.T) {
			s := store{client(start(t, Config{Sidecar: sidecar}).URL()), "bucket"}
			if err := s.put(t.Context(), "k", nil, true); err != nil {
				t.Fatal(err)
			}
			const writers, each = 16, 8
			var group sync.WaitGroup
			for w := range writers {
				group.Go(func() {
					for n := range each {
						own := fmt.Sprintf("%d.%d\n", w, n)
						for done := false; !done; {
							out, err := s.GetObject(t.Context(), &s3.GetObjectInput{Bucket: &s.bucket, Key: aws.String("k")})
							if err != nil {
								t.Error(err)
								return
							}
							var text bytes.Buffer
							_, err = text.ReadFrom(out.Body)
							out.Body.Close()
							if err != nil {
								t.Error(err)
								return
							}
							text.WriteString(own)
							_, err = s.PutObject(t.Context(), &s3.PutObjectInput{Bucket: &s.bucket, Key: aws.String("k"),
								Body: bytes.NewReader(text.Bytes()), IfMatch: out.ETag})
							if done = err == nil; !done && status(err) != http.StatusPreconditionFailed {
								t.Error(err)
								return
							}
						}
					}
				})
			}
			group.Wait()
			text := string(s.get(t, "k"))
			for w := range writers {
				for n := range each {
					if own := fmt.Sprintf("%d.%d\n", w, n); strings.Count("\n"+text, "\n"+own) != 1 {
						t.Errorf("%q is there %d times", own, strings.Count("\n"+text, "\n"+own))
					}
				}
			}
		})
	}
}
