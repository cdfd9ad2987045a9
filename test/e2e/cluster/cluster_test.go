package cluster

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"text/template"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/secretmanager-io/secretmanager/test/e2e/images"
	"github.com/secretmanager-io/secretmanager/test/e2e/inputs"
)

func TestWaitSaysWhatItSaw(t *testing.T) {
	err := Wait(t.Context(), 300*time.Millisecond, "the moon", func(context.Context) (bool, string, error) {
		return false, "clouds", nil
	})
	if err == nil || !strings.Contains(err.Error(), "the moon") || !strings.Contains(err.Error(), "clouds") {
		t.Errorf("got %v", err)
	}
}

// A server that starts refuses at first.
func TestWaitOutlastsErrors(t *testing.T) {
	calls := 0
	err := Wait(t.Context(), 10*time.Second, "the server", func(context.Context) (bool, string, error) {
		if calls++; calls == 1 {
			return false, "", errors.New("refused")
		}
		return true, "", nil
	})
	if err != nil || calls != 2 {
		t.Errorf("%d calls, %v", calls, err)
	}
}

func TestWaitEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	err := Wait(ctx, time.Minute, "nothing", func(context.Context) (bool, string, error) { return false, "", nil })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

// The driver's released manifests become what the tests need, with its released
// images and with ours.
func TestDriverManifests(t *testing.T) {
	dir, err := inputs.ModuleDir(t.Context(), filepath.Join("..", "..", "driver"), "sigs.k8s.io/secrets-store-csi-driver")
	if err != nil {
		t.Fatal(err)
	}
	for _, image := range []string{"", "ours:1"} {
		t.Run("image "+image, func(t *testing.T) {
			c := &Cluster{Images: &images.Set{Driver: image}}
			kinds := map[string]*unstructured.Unstructured{}
			for _, file := range driverManifests {
				text, err := os.ReadFile(filepath.Join(dir, "deploy", file))
				if err != nil {
					t.Fatal(err)
				}
				objects, err := Decode(text)
				if err != nil {
					t.Fatal(err)
				}
				for _, object := range objects {
					for _, edit := range []Edit{editCSIDriver, c.editDriver} {
						if err := edit(object); err != nil {
							t.Fatal(err)
						}
					}
					kinds[object.GetKind()] = object
				}
			}

			requests, _, _ := unstructured.NestedSlice(kinds["CSIDriver"].Object, "spec", "tokenRequests")
			if len(requests) != len(tokenAudiences) {
				t.Errorf("tokenRequests are %v", requests)
			}
			var set appsv1.DaemonSet
			if err := runtime.DefaultUnstructuredConverter.FromUnstructured(kinds["DaemonSet"].Object, &set); err != nil {
				t.Fatal(err)
			}
			if set.Namespace != driverNamespace || set.Name != driverDaemonSet {
				t.Errorf("the driver is %s/%s", set.Namespace, set.Name)
			}
			containers := set.Spec.Template.Spec.Containers
			wantContainers := 3
			if image != "" {
				wantContainers = 2
			}
			if len(containers) != wantContainers {
				t.Errorf("%d containers, want %d", len(containers), wantContainers)
			}
			for _, container := range containers {
				if image != "" && container.Image != image {
					t.Errorf("container %s has the image %s", container.Name, container.Image)
				}
				if container.Name != "secrets-store" {
					continue
				}
				for name, value := range driverFlags {
					if n := slices.Index(container.Args, name+"="+value); n < 0 {
						t.Errorf("the driver's flags lack %s=%s: %q", name, value, container.Args)
					}
				}
				if got := strings.Count(strings.Join(container.Args, " "), "--enable-secret-rotation"); got != 1 {
					t.Errorf("a flag is given %d times: %q", got, container.Args)
				}
			}
		})
	}
}

func TestVaultManifest(t *testing.T) {
	for _, stock := range []bool{true, false} {
		var text bytes.Buffer
		err := template.Must(template.New("").Parse(vaultManifest)).Execute(&text,
			map[string]any{"Image": "vault:1", "Stock": stock, "Token": "root", "NodePort": vaultNodePort})
		if err != nil {
			t.Fatal(err)
		}
		objects, err := Decode(text.Bytes())
		if err != nil {
			t.Fatal(err)
		}
		if len(objects) != 5 {
			t.Errorf("%d objects, want 5", len(objects))
		}
	}
}

func TestDecode(t *testing.T) {
	objects, err := Decode([]byte("# only a comment\n---\nkind: A\n---\n---\nkind: B\n"))
	if err != nil {
		t.Fatal(err)
	}
	if len(objects) != 2 || objects[0].GetKind() != "A" || objects[1].GetKind() != "B" {
		t.Errorf("got %v", objects)
	}
	if _, err := Decode([]byte("kind: [")); err == nil {
		t.Error("no error for a broken document")
	}
}
