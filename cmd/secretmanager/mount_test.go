package main

import (
	"bytes"
	"context"
	"encoding/json"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	grpcstatus "google.golang.org/grpc/status"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	"sigs.k8s.io/secrets-store-csi-driver/provider/v1alpha1"

	classes "github.com/secretmanager-io/secretmanager/internal/class"
	"github.com/secretmanager-io/secretmanager/internal/cli"
	"github.com/secretmanager-io/secretmanager/internal/cli/root"
	"github.com/secretmanager-io/secretmanager/test/testenv"
)

// odd is a provider with responses that ours never sends.
type odd struct {
	v1alpha1.UnimplementedCSIDriverProviderServer
	got    *v1alpha1.MountRequest
	answer *v1alpha1.MountResponse
	err    error
	hang   bool
}

func (o *odd) Mount(ctx context.Context, r *v1alpha1.MountRequest) (*v1alpha1.MountResponse, error) {
	if o.hang {
		<-ctx.Done()
	}
	o.got = r
	return o.answer, o.err
}

// mountWith runs mount with such a provider.
func mountWith(t *testing.T, o *odd, args ...string) (code int, stdout, stderr, out string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "sm") // t.TempDir is too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	listener, err := net.Listen("unix", filepath.Join(dir, "s.sock"))
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	v1alpha1.RegisterCSIDriverProviderServer(server, o)
	go server.Serve(listener)
	t.Cleanup(server.Stop)

	out = filepath.Join(dir, "out")
	var outBuffer, errBuffer bytes.Buffer
	code = root.Run(t.Context(), cli.Environment{
		IOStreams:   genericiooptions.IOStreams{In: strings.NewReader(""), Out: &outBuffer, ErrOut: &errBuffer},
		ProgramName: "secretmanager", Getenv: func(string) string { return "" },
	}, append([]string{"mount", "--socket", filepath.Join(dir, "s.sock"), "--out", out}, args...))
	return code, outBuffer.String(), errBuffer.String(), out
}

func file(t *testing.T, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

const class = `{"apiVersion": "secrets-store.csi.x-k8s.io/v1", "kind": "SecretProviderClass",
 "metadata": {"name": "matrix", "namespace": "demo"},
 "spec": {"provider": "secretmanager", "parameters": {"roleName": "matrix", "secretName": "overridden",
  "csi.storage.k8s.io/pod.namespace": "forged"}}}`

// The request is that of kubelet and driver: their attributes override those of authors of classes and
// pods.
func TestMountRequest(t *testing.T) {
	issuer, err := testenv.NewJWTIssuer()
	if err != nil {
		t.Fatal(err)
	}
	claims := issuer.Claims("demo", "app", "vault", time.Hour)
	token := issuer.Sign(claims)
	expires := time.Unix(claims["exp"].(int64), 0).UTC().Format(time.RFC3339)
	podUID := claims["kubernetes.io"].(map[string]any)["pod"].(map[string]any)["uid"]
	for _, test := range []struct {
		name    string
		args    []string
		want    map[string]any
		secrets string
	}{
		{
			name: "all from class and token",
			args: []string{"--class", file(t, class), "--service-account-token", file(t, token+"\n")},
			want: map[string]any{
				"roleName": "matrix", "secretName": "overridden", "secretProviderClass": "matrix",
				"csi.storage.k8s.io/pod.name": "app-0", "csi.storage.k8s.io/pod.namespace": "demo",
				"csi.storage.k8s.io/pod.uid":             podUID,
				"csi.storage.k8s.io/serviceAccount.name": "app", "csi.storage.k8s.io/ephemeral": "true",
				"csi.storage.k8s.io/serviceAccount.tokens": map[string]any{
					"vault": map[string]any{"token": token, "expirationTimestamp": expires}},
			},
			secrets: "null",
		},
		{
			name: "all said, two tokens, a Secret",
			args: []string{"--class", file(t, strings.Replace(class, `, "namespace": "demo"`, "", 1)),
				"--service-account-token", file(t, token), "--kube-token", file(t, token),
				"-n", "demo", "--pod", "web", "--pod-uid", "1-2", "--service-account", "other", "--audience", "team",
				"--volume-attribute", "secretName=matrix", "--volume-attribute", "csi.storage.k8s.io/pod.uid=forged",
				"--secret",
				file(t,
					`{"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "matrix"}, `+
						`"data": {"a": "dmF1bHQ6", "b": "eA=="}, "stringData": {"b": "y"}}`)},
			want: map[string]any{
				"roleName": "matrix", "secretName": "matrix", "secretProviderClass": "matrix",
				"csi.storage.k8s.io/pod.name": "web", "csi.storage.k8s.io/pod.namespace": "demo",
				"csi.storage.k8s.io/pod.uid":             "1-2",
				"csi.storage.k8s.io/serviceAccount.name": "other", "csi.storage.k8s.io/ephemeral": "true",
				"csi.storage.k8s.io/serviceAccount.tokens": map[string]any{
					"team": map[string]any{"token": token, "expirationTimestamp": expires},
					"":     map[string]any{"token": token, "expirationTimestamp": expires}},
			},
			secrets: `{"a":"vault:","b":"y"}`,
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			o := &odd{answer: &v1alpha1.MountResponse{ObjectVersion: []*v1alpha1.ObjectVersion{{Id: "a", Version: "1"}}}}
			if code, _, stderr, _ := mountWith(t, o, test.args...); code != cli.ExitDone {
				t.Fatalf("exit code %d: %s", code, stderr)
			}
			var got map[string]any
			if err := json.Unmarshal([]byte(o.got.GetAttributes()), &got); err != nil {
				t.Fatal(err)
			}
			var tokens map[string]any
			if err := json.Unmarshal([]byte(got[classes.AttributeTokens].(string)), &tokens); err != nil {
				t.Fatal(err)
			}
			got[classes.AttributeTokens] = tokens
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("attributes, -want +got:\n%s", diff)
			}
			if o.got.GetSecrets() != test.secrets || o.got.GetPermission() != "420" ||
				len(o.got.GetCurrentObjectVersion()) != 0 {
				t.Errorf("secrets %s, permission %s", o.got.GetSecrets(), o.got.GetPermission())
			}
		})
	}
}

// The driver treats these responses as errors, or ignores them.
func TestMountResponses(t *testing.T) {
	args := []string{"--class", file(t, class), "--service-account-token", file(t, "no JWT")}
	versions := []*v1alpha1.ObjectVersion{{Id: "a", Version: "1"}}
	files := []*v1alpha1.File{{Path: "a", Mode: 0o640, Contents: []byte("hunter2")}}
	for _, test := range []struct {
		name           string
		odd            odd
		code           int
		stdout, stderr string
	}{
		{"all well", odd{answer: &v1alpha1.MountResponse{ObjectVersion: versions, Files: files}}, cli.ExitDone,
			"a      0640   7       1", ""},
		{"error code",
			odd{answer: &v1alpha1.MountResponse{ObjectVersion: versions, Files: files,
				Error: &v1alpha1.Error{Code: "Oops"}}}, cli.ExitFailed, "", `error code "Oops"`},
		{"no versions", odd{answer: &v1alpha1.MountResponse{Files: files}}, cli.ExitFailed, "", "without object versions"},
		{"no files", odd{answer: &v1alpha1.MountResponse{ObjectVersion: versions}}, cli.ExitDone, "PATH",
			"responded with no files"},
		{"version of no file",
			odd{answer: &v1alpha1.MountResponse{ObjectVersion: []*v1alpha1.ObjectVersion{{Id: "b", Version: "2"}},
				Files: files}}, cli.ExitDone, "a      0640   7       -", "object version b: 2, which is not of a file"},
		{"path that leads out",
			odd{answer: &v1alpha1.MountResponse{ObjectVersion: versions, Files: []*v1alpha1.File{{Path: "../a"}}}},
			cli.ExitFailed, "", "writing the files"},
		{"final refusal", odd{err: grpcstatus.Error(codes.PermissionDenied, "role matrix says no")}, cli.ExitFailed, "",
			"the provider refused the mount: PermissionDenied: role matrix says no"},
		{"refusal that is not final", odd{err: grpcstatus.Error(codes.ResourceExhausted, "too much")}, cli.ExitFailed,
			"", "hint: this error is not final for the kubelet"},
		{"more than the driver takes",
			odd{answer: &v1alpha1.MountResponse{ObjectVersion: versions,
				Files: []*v1alpha1.File{{Path: "a", Contents: make([]byte, 5<<20)}}}}, cli.ExitFailed, "", "ResourceExhausted"},
	} {
		t.Run(test.name, func(t *testing.T) {
			code, stdout, stderr, out := mountWith(t, &test.odd, args...)
			if code != test.code || !strings.Contains(stdout, test.stdout) || !strings.Contains(stderr, test.stderr) {
				t.Errorf("exit code %d\n%s%s", code, stdout, stderr)
			}
			if strings.Contains(stdout+stderr, "hunter2") {
				t.Errorf("the content is shown:\n%s%s", stdout, stderr)
			}
			_, err := os.Stat(filepath.Join(out, "a"))
			if wrote := err == nil; wrote != (test.code == cli.ExitDone && len(test.odd.answer.GetFiles()) > 0) {
				t.Errorf("files were written: %t", wrote)
			}
		})
	}
}

// --timeout bounds the wait for a provider that does not respond.
func TestMountTimeout(t *testing.T) {
	code, _, stderr, _ := mountWith(t, &odd{hang: true}, "--class", file(t, class), "--service-account-token",
		file(t, "x"), "--timeout", "100ms")
	if code != cli.ExitFailed || !strings.Contains(stderr, "error: the provider did not respond in time: ") {
		t.Errorf("exit code %d: %s", code, stderr)
	}
}
