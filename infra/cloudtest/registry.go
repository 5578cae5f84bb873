package cloudtest

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/ecr"
)

// registry is ECR's side that Docker talks to: in front of a real registry it
// asks for one of the passwords it has given out, knows only repositories that
// were created, and reports pushed images to moto.
type registry struct {
	address string // host:port
	backend string // URL of the registry behind it
	ecr     *ecr.Client
	server  *http.Server
	tokens  sync.Map // password -> true
}

const registryUser = "AWS"

// Media types of manifests. Lambda runs images of the first two kinds only; an
// index, which is what a builder with attestations pushes, it refuses.
// https://docs.aws.amazon.com/lambda/latest/dg/images-create.html
const (
	MediaTypeDocker      = "application/vnd.docker.distribution.manifest.v2+json"
	MediaTypeOCI         = "application/vnd.oci.image.manifest.v1+json"
	mediaTypeDockerIndex = "application/vnd.docker.distribution.manifest.list.v2+json"
	mediaTypeOCIIndex    = "application/vnd.oci.image.index.v1+json"
)

// maxManifest is more than any manifest has: registries take up to 4 MiB.
const maxManifest = 4 << 20

func startRegistry(backend string, client *ecr.Client) (*registry, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	r := &registry{address: l.Addr().String(), backend: "http://" + backend, ecr: client}
	target, err := url.Parse(r.backend)
	if err != nil {
		return nil, err
	}
	proxy := &httputil.ReverseProxy{
		Rewrite: func(p *httputil.ProxyRequest) {
			p.SetURL(target)
			p.Out.Host = p.In.Host // the registry writes it into the addresses it hands out
			p.Out.Header.Del("Authorization")
		},
		ModifyResponse: r.pushed,
	}
	r.server = &http.Server{ReadHeaderTimeout: 10 * time.Second,
		Handler: http.HandlerFunc(func(rw http.ResponseWriter, q *http.Request) {
			if !r.admits(q) {
				rw.Header().Set("WWW-Authenticate", `Basic realm="ECR"`)
				refuse(rw, http.StatusUnauthorized, "UNAUTHORIZED", "no basic auth credentials")
				return
			}
			name, manifest := splitPath(q.URL.Path)
			if name != "" && !r.exists(q.Context(), name) {
				refuse(rw, http.StatusNotFound, "NAME_UNKNOWN", fmt.Sprintf("The repository with name '%s' does not exist", name))
				return
			}
			if manifest != "" && q.Method == http.MethodPut {
				body, err := io.ReadAll(http.MaxBytesReader(rw, q.Body, maxManifest))
				if err != nil {
					refuse(rw, http.StatusBadRequest, "MANIFEST_INVALID", err.Error())
					return
				}
				q.Body = io.NopCloser(bytes.NewReader(body))
				q = q.WithContext(context.WithValue(q.Context(), manifestKey{}, string(body)))
			}
			proxy.ServeHTTP(rw, q)
		})}
	go func() { _ = r.server.Serve(l) }()
	return r, nil
}

type manifestKey struct{}

var registryPath = regexp.MustCompile(`^/v2/(.+?)/(?:blobs/.*|tags/list|manifests/(.+))$`)

// splitPath returns repository and manifest reference of a registry request.
func splitPath(path string) (name, manifest string) {
	if m := registryPath.FindStringSubmatch(path); m != nil {
		return m[1], m[2]
	}
	return "", ""
}

func refuse(rw http.ResponseWriter, status int, code, message string) {
	rw.Header().Set("Content-Type", "application/json")
	rw.WriteHeader(status)
	_ = json.NewEncoder(rw).Encode(map[string]any{"errors": []map[string]string{{"code": code, "message": message}}})
}

// login makes a new password, as ECR does each time it is asked.
func (r *registry) login() (password string) {
	password = rand.Text()
	r.tokens.Store(password, true)
	return password
}

// basicAuth is a login as HTTP and Docker's configuration file have it.
func basicAuth(user, password string) string {
	return base64.StdEncoding.EncodeToString([]byte(user + ":" + password))
}

func (r *registry) admits(q *http.Request) bool {
	user, password, ok := q.BasicAuth()
	_, known := r.tokens.Load(password)
	return ok && user == registryUser && known
}

func (r *registry) exists(ctx context.Context, name string) bool {
	_, err := r.ecr.DescribeRepositories(ctx, &ecr.DescribeRepositoriesInput{RepositoryNames: []string{name}})
	return err == nil
}

// pushed reports a manifest that the registry has taken to moto.
func (r *registry) pushed(p *http.Response) error {
	text, ok := p.Request.Context().Value(manifestKey{}).(string)
	if !ok || p.StatusCode != http.StatusCreated {
		return nil
	}
	name, reference := splitPath(p.Request.URL.Path)
	input := &ecr.PutImageInput{RepositoryName: &name, ImageManifest: &text}
	if digest := p.Header.Get("Docker-Content-Digest"); digest != "" {
		input.ImageDigest = &digest
	}
	if mediaType := p.Request.Header.Get("Content-Type"); mediaType != "" {
		input.ImageManifestMediaType = &mediaType
	}
	if !strings.HasPrefix(reference, "sha256:") {
		input.ImageTag = &reference
	}
	if _, err := r.ecr.PutImage(p.Request.Context(), input); err != nil &&
		!strings.Contains(err.Error(), "ImageAlreadyExists") {
		return err
	}
	return nil
}

// manifest is what a registry has under a tag or digest.
type manifest struct {
	MediaType string `json:"mediaType"`
	Config    struct {
		Digest string `json:"digest"`
	} `json:"config"`
	Layers []struct {
		MediaType string `json:"mediaType"`
		Size      int64  `json:"size"`
	} `json:"layers"`
}

// get reads from the registry itself.
func (r *registry) get(ctx context.Context, path string, into any) (mediaType string, err error) {
	q, err := http.NewRequestWithContext(ctx, http.MethodGet, r.backend+"/v2/"+path, nil)
	if err != nil {
		return "", err
	}
	q.Header.Set("Accept", strings.Join([]string{MediaTypeDocker, MediaTypeOCI, mediaTypeDockerIndex, mediaTypeOCIIndex},
		", "))
	p, err := http.DefaultClient.Do(q)
	if err != nil {
		return "", err
	}
	defer p.Body.Close()
	if p.StatusCode != http.StatusOK {
		return "", fmt.Errorf("%s: %s", path, p.Status)
	}
	return p.Header.Get("Content-Type"), json.NewDecoder(io.LimitReader(p.Body, maxManifest)).Decode(into)
}

// runnable refuses an image that Lambda refuses to run, for the same reasons.
func (r *registry) runnable(ctx context.Context, repository, digest, architecture string) error {
	name, ok := strings.CutPrefix(repository, r.address+"/")
	if !ok {
		return fmt.Errorf("the image %s is in no repository of this account", repository)
	}
	var m manifest
	mediaType, err := r.get(ctx, name+"/manifests/"+digest, &m)
	if err != nil {
		return fmt.Errorf("source image %s@%s does not exist: %w", repository, digest, err)
	}
	if mediaType != MediaTypeDocker && mediaType != MediaTypeOCI {
		return fmt.Errorf("the image manifest or layer media type for the source image %s@%s is not supported: %s",
			repository, digest, mediaType)
	}
	for _, l := range m.Layers {
		if !strings.Contains(l.MediaType, "tar") || strings.Contains(l.MediaType, "zstd") {
			return fmt.Errorf("the image manifest or layer media type for the source image %s@%s is not supported: layer of type %s", repository, digest, l.MediaType)
		}
	}
	var config struct {
		Architecture string `json:"architecture"`
		OS           string `json:"os"`
	}
	if _, err := r.get(ctx, name+"/blobs/"+m.Config.Digest, &config); err != nil {
		return err
	}
	if config.OS != "linux" || config.Architecture != architecture {
		return fmt.Errorf("the image is for %s/%s, the function for linux/%s", config.OS, config.Architecture, architecture)
	}
	return nil
}

// digest is that of the manifest under a tag.
func (r *registry) digest(ctx context.Context, name, tag string) (string, error) {
	q, err := http.NewRequestWithContext(ctx, http.MethodHead, r.backend+"/v2/"+name+"/manifests/"+tag, nil)
	if err != nil {
		return "", err
	}
	q.Header.Set("Accept", strings.Join([]string{MediaTypeDocker, MediaTypeOCI, mediaTypeDockerIndex, mediaTypeOCIIndex},
		", "))
	p, err := http.DefaultClient.Do(q)
	if err != nil {
		return "", err
	}
	defer p.Body.Close()
	if p.StatusCode != http.StatusOK {
		return "", fmt.Errorf("%s:%s: %s", name, tag, p.Status)
	}
	return p.Header.Get("Docker-Content-Digest"), nil
}
