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
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/secretmanager-io/secretmanager/test/e2e/images"
)

func TestWaitReportsLastState(t *testing.T) {
	err := Wait(t.Context(), 300*time.Millisecond, "the moon", func(context.Context) (bool, string, error) {
		return false, "clouds", nil
	})
	if err == nil || !strings.Contains(err.Error(), "the moon") || !strings.Contains(err.Error(), "clouds") {
		t.Errorf("got %v", err)
	}
}

// A server refuses connections while it starts.
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

// The edited manifests of the driver have the settings of the tests, with released images
// and with ours.
func TestDriverManifests(t *testing.T) {
	dir, err := DriverSources(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, image := range []string{"", "ours:1"} {
		for _, d := range drivers {
			t.Run(d.name+" with image "+image, func(t *testing.T) { testDriverManifests(t, dir, d, image) })
		}
	}
}

// The settings of the driver are those in docs/install.md.
func TestDriverIsAsDocumented(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "..", "..", "docs", "install.md"))
	if err != nil {
		t.Fatal(err)
	}
	for flag, value := range map[string]string{"--enable-secret-rotation": "enableSecretRotation",
		"--rotation-poll-interval": "rotationPollInterval"} {
		if want := value + ": " + drivers[0].flags[flag]; drivers[0].name != Driver ||
			!strings.Contains(string(text), "\n"+want) {
			t.Errorf("docs/install.md does not have %q", want)
		}
	}
}

func testDriverManifests(t *testing.T, dir string, d driver, image string) {
	c := &Cluster{Images: &images.Set{Driver: image}}
	kinds := map[string]*unstructured.Unstructured{}
	for _, file := range driverManifests {
		text, err := os.ReadFile(filepath.Join(dir, "deploy", file))
		if err != nil {
			t.Fatal(err)
		}
		objects, err := Decode([]byte(d.renamed(string(text))))
		if err != nil {
			t.Fatal(err)
		}
		for _, object := range objects {
			for _, edit := range []Edit{d.editCSIDriver, c.editDriver(d)} {
				if err := edit(object); err != nil {
					t.Fatal(err)
				}
			}
			kinds[object.GetKind()] = object
		}
	}

	if name := kinds["CSIDriver"].GetName(); name != d.name {
		t.Errorf("the CSIDriver is called %s", name)
	}
	requests, _, _ := unstructured.NestedSlice(kinds["CSIDriver"].Object, "spec", "tokenRequests")
	if len(requests) != len(d.audiences) {
		t.Errorf("tokenRequests are %v", requests)
	}
	var set appsv1.DaemonSet
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(kinds["DaemonSet"].Object, &set); err != nil {
		t.Fatal(err)
	}
	if set.Namespace != DriverNamespace || set.Name != d.daemonSet || set.Spec.Selector.MatchLabels["app"] != d.daemonSet {
		t.Errorf("the driver is %s/%s and selects %v", set.Namespace, set.Name, set.Spec.Selector.MatchLabels)
	}
	pluginDir := "/var/lib/kubelet/plugins/" + d.daemonSet + "/"
	if !slices.ContainsFunc(set.Spec.Template.Spec.Volumes,
		func(v corev1.Volume) bool { return v.HostPath != nil && v.HostPath.Path == pluginDir }) {
		t.Errorf("no volume has the directory %s", pluginDir)
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
		if container.Name == "node-driver-registrar" &&
			!slices.Contains(container.Args, "--kubelet-registration-path="+pluginDir+"csi.sock") {
			t.Errorf("the registrar's flags are %q", container.Args)
		}
		if container.Name != "secrets-store" {
			continue
		}
		for name, value := range d.flags {
			if n := slices.Index(container.Args, name+"="+value); n < 0 {
				t.Errorf("the driver's flags lack %s=%s: %q", name, value, container.Args)
			}
		}
		if got := strings.Count(strings.Join(container.Args, " "), "--enable-secret-rotation"); got != 1 {
			t.Errorf("a flag is given %d times: %q", got, container.Args)
		}
		// The throttled driver has the settings of its release.
		if d.name == ThrottledDriver && !slices.Contains(container.Args, "--rotation-poll-interval=2m") {
			t.Errorf("the driver's flags are %q", container.Args)
		}
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
