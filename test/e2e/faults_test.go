package e2e

import (
	"context"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/secretmanager-io/secretmanager/test/e2e/cluster"
)

// These tests are about the empty volume: during any failure, no container starts
// without its files, and after it the pod starts without intervention. See
// docs/failures.md.

// TestVaultFaults tests failures of Vault. The provider's errors are final, so the tests
// pass with the released driver.
func TestVaultFaults(t *testing.T) {
	t.Parallel()
	requireProduct(t)
	for _, test := range []struct {
		name  string
		mode  string
		texts []string
	}{
		{"refused connection", "refuse", []string{"VaultUnreachable: ", "connection refused", "check that Vault is up"}},
		{"slower than the mount timeout", "hold",
			[]string{"VaultUnreachable: ", "no response from Vault in time", "check that Vault is up"}},
		{"429 for ever", "busy", []string{"VaultRateLimited: ", "HTTP 429", "check the rate-limit quotas"}},
		{"429 with a Retry-After beyond the mount timeout", "busy 3600",
			[]string{"VaultRateLimited: ", "HTTP 429", "check the rate-limit quotas"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			f := newFaultFixture(t, cluster.ThrottledDriver)
			proxy := newFaultProxy(t)
			newProvider(t, f.provider, "--vault-addr="+proxy.address, "--mount-timeout=3s").start(t)

			proxy.set(t, test.mode)
			f.pod(t, "app")
			f.waitTries(t, "app", 2)
			f.checkStuck(t, "app", test.texts...)

			proxy.set(t, "pass")
			f.waitReady(t, "app")
			f.checkFiles(t, "app", firstToken)
		})
	}
}

// TestSealedVault seals the Vault of all tests, so it does not run in parallel.
func TestSealedVault(t *testing.T) {
	f := newFaultFixture(t, cluster.ThrottledDriver)
	newProvider(t, f.provider, "--mount-timeout=3s").start(t)
	unseal := unsealKey(t)

	if err := shared.Vault.Do(t.Context(), http.MethodPut, "sys/seal", nil, nil); err != nil {
		t.Fatal(err)
	}
	unsealed := false
	end := func(ctx context.Context) error {
		if unsealed {
			return nil
		}
		unsealed = true
		return shared.Vault.Do(ctx, http.MethodPut, "sys/unseal", map[string]any{"key": unseal}, nil)
	}
	t.Cleanup(func() { // for the tests after this one
		if err := end(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	})
	f.pod(t, "app")
	f.waitTries(t, "app", 2)
	f.checkStuck(t, "app", "VaultSealed: ", "HTTP 503", "check `vault status`")

	if err := end(t.Context()); err != nil {
		t.Fatal(err)
	}
	f.waitReady(t, "app")
	f.checkFiles(t, "app", firstToken)
}

// unsealKey reads the key from the log of Vault, which prints it in one of two ways.
func unsealKey(t *testing.T) string {
	t.Helper()
	pods, err := shared.Client.CoreV1().Pods("vault").List(t.Context(), metav1.ListOptions{LabelSelector: "app=vault"})
	if err != nil || len(pods.Items) != 1 {
		t.Fatalf("%d pods of Vault, %v", len(pods.Items), err)
	}
	log, err := shared.Logs(t.Context(), "vault", pods.Items[0].Name, "")
	if err != nil {
		t.Fatal(err)
	}
	key := regexp.MustCompile(`(?:"unsealKey":"|Unseal Key: )([A-Za-z0-9+/=]+)`).FindStringSubmatch(log)
	if key == nil {
		t.Fatal("the log of Vault does not have its unseal key")
	}
	return key[1]
}

// TestProviderKilled kills the provider while it works on a mount.
func TestProviderKilled(t *testing.T) {
	t.Parallel()
	requireProduct(t)
	setUp := func(t *testing.T, driver string) (*fixture, *faultProxy, *ownProvider) {
		t.Parallel()
		f := newFaultFixture(t, driver)
		proxy := newFaultProxy(t)
		provider := newProvider(t, f.provider, "--vault-addr="+proxy.address, "--mount-timeout=1m")
		provider.start(t)
		proxy.set(t, "hold")
		return f, proxy, provider
	}
	// The driver repeats an interrupted call twice, and then fails.
	untilUnavailable := func(t *testing.T, f *fixture, proxy *faultProxy, provider *ownProvider) {
		for n := range 3 {
			proxy.wait(t, "hold", n+1)
			f.checkWaiting(t, "app")
			provider.kill(t)
		}
		event, err := shared.WaitPodEvent(t.Context(), f.namespace, "app", time.Minute, "code = Unavailable")
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("event: %s", event.Message)
	}

	t.Run("once, and the driver sends the call again", func(t *testing.T) {
		f, proxy, provider := setUp(t, cluster.ThrottledDriver)
		f.pod(t, "app")
		proxy.wait(t, "hold", 1)
		provider.kill(t)
		proxy.wait(t, "hold", 2)
		proxy.set(t, "pass")
		f.waitReady(t, "app")
		f.checkFiles(t, "app", firstToken)
	})

	t.Run("until the driver gives up", func(t *testing.T) {
		f, proxy, provider := setUp(t, cluster.Driver)
		f.pod(t, "app")
		untilUnavailable(t, f, proxy, provider)
		// The kubelet's next try reaches the provider.
		proxy.wait(t, "hold", 4)
		f.checkWaiting(t, "app")
		proxy.set(t, "pass")
		f.waitReady(t, "app")
		f.checkFiles(t, "app", firstToken)
	})

	// No provider can prevent this, so docs/install.md sets rotationPollInterval. If the
	// driver fixes it, this test fails, and docs/failures.md must be updated.
	t.Run("until the driver gives up, within its poll interval", func(t *testing.T) {
		f, proxy, provider := setUp(t, cluster.ThrottledDriver)
		f.pod(t, "app")
		untilUnavailable(t, f, proxy, provider)
		if err := shared.WaitPod(t.Context(), f.namespace, "app"); err != nil {
			t.Fatal(err)
		}
		f.checkStarted(t, "app", withoutFiles)
		if n := proxy.count("hold"); n != 3 {
			t.Errorf("%d logins were tried, want no more than the three before the pod started", n)
		}
		// The volume gets its files later, but the running container does not see them.
		proxy.set(t, "pass")
		mounted := f.waitPodStatus(t, "app", "matrix").GetCreationTimestamp()
		if got := f.sh(t, "app", "ls -A /secrets"); got != "" {
			t.Errorf("the container sees %q", got)
		}
		// This finds such a pod after its events have expired.
		pod, err := shared.Client.CoreV1().Pods(f.namespace).Get(t.Context(), "app", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if started := pod.Status.ContainerStatuses[0].State.Running.StartedAt; !started.Before(&mounted) {
			t.Errorf("the container started %s, the driver logged the mount %s", started, mounted)
		}
	})

	// An application can prevent this with an init container.
	t.Run("until the driver gives up, and an init container looks", func(t *testing.T) {
		f, proxy, provider := setUp(t, cluster.ThrottledDriver)
		apply(t, strings.Replace(f.podYAML("app", "matrix", "matrix", secretName), "  containers:\n", `
  initContainers:
  - name: has-secrets
    image: `+shared.Images.App+`
    command: [test, -s, /secrets/api-token]
    volumeMounts: [{name: secrets, mountPath: /secrets, readOnly: true}]
  containers:
`, 1))
		untilUnavailable(t, f, proxy, provider)
		err := cluster.Wait(t.Context(), time.Minute, "the init container to fail",
			func(ctx context.Context) (bool, string, error) {
				pod, err := shared.Client.CoreV1().Pods(f.namespace).Get(ctx, "app", metav1.GetOptions{})
				if err != nil || len(pod.Status.InitContainerStatuses) != 1 {
					return false, "", err
				}
				status := pod.Status.InitContainerStatuses[0]
				return status.RestartCount > 0, fmt.Sprintf("%+v", status.State), nil
			})
		if err != nil {
			t.Fatal(err)
		}
		proxy.set(t, "pass")
		f.waitPodStatus(t, "app", "matrix")
		f.waitReady(t, "app")
		f.checkFiles(t, "app", firstToken)
	})
}

// TestDriverKilled kills the driver while it waits for the provider, so it does not run in
// parallel. The mount that remains is empty, and the driver treats the next one as a
// repeat and hides its errors: no setting of the driver prevents this for the second pod.
// If the driver fixes it, this test fails, and docs/failures.md must be updated.
func TestDriverKilled(t *testing.T) {
	tests := []struct {
		mode string // of Vault, afterwards
		want string
	}{{"pass", withFiles}, {"busy 3600", withoutFiles}}
	fixtures, proxies := make([]*fixture, len(tests)), make([]*faultProxy, len(tests))
	for n := range tests {
		f, proxy := newFaultFixture(t, cluster.Driver), newFaultProxy(t)
		newProvider(t, f.provider, "--vault-addr="+proxy.address, "--mount-timeout=1m").start(t)
		fixtures[n], proxies[n] = f, proxy
	}
	for n, f := range fixtures {
		proxies[n].set(t, "hold")
		f.pod(t, "app")
	}
	for n := range fixtures {
		proxies[n].wait(t, "hold", 1)
	}
	kill(t, cluster.DriverNamespace, cluster.DriverSelector, "secrets-store")
	for n, test := range tests {
		proxies[n].set(t, test.mode)
	}
	for n, f := range fixtures {
		if err := shared.WaitPod(t.Context(), f.namespace, "app"); err != nil {
			t.Fatal(err)
		}
		f.checkStarted(t, "app", tests[n].want)
		// The volume was mounted when the container started, so the container sees later files.
		proxies[n].set(t, "pass")
		f.waitPodStatus(t, "app", "matrix")
		f.checkFiles(t, "app", firstToken)
	}
}

// TestNoProvider starts pods while no provider runs on the node.
func TestNoProvider(t *testing.T) {
	t.Parallel()
	requireProduct(t)
	t.Run("and there never was one", func(t *testing.T) {
		t.Parallel()
		f := newFaultFixture(t, cluster.ThrottledDriver)
		f.pod(t, "app")
		f.waitTries(t, "app", 2)
		f.checkStuck(t, "app", "provider not found", f.provider)
		newProvider(t, f.provider).start(t)
		f.waitReady(t, "app")
		f.checkFiles(t, "app", firstToken)
	})

	t.Run("any more", func(t *testing.T) {
		t.Parallel()
		f := newFaultFixture(t, cluster.Driver)
		provider := newProvider(t, f.provider)
		provider.start(t)
		f.pod(t, "before")
		f.waitReady(t, "before")
		provider.stop(t)
		// The driver knows the socket, and waits for it as long as the kubelet waits.
		f.pod(t, "app")
		event, err := shared.WaitPodEvent(t.Context(), f.namespace, "app", 3*time.Minute, "code = DeadlineExceeded")
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("event: %s", event.Message)
		f.waitCalls(t, "app", 2)
		f.checkWaiting(t, "app")
		if got := f.sh(t, "before", "cat /secrets/api-token"); got != firstToken {
			t.Errorf("the pod that was there before reads %q", got)
		}
		provider.start(t)
		f.waitReady(t, "app")
		f.checkFiles(t, "app", firstToken)
	})
}

// waitCalls waits until the driver has tried n times to call the provider for the pod.
func (f *fixture) waitCalls(t *testing.T, pod string, n int) {
	t.Helper()
	err := cluster.Wait(t.Context(), time.Minute, fmt.Sprintf("%d calls for %s", n, pod),
		func(ctx context.Context) (bool, string, error) {
			log, err := shared.DriverLog(ctx, f.driver)
			calls := 0
			for line := range strings.Lines(log) {
				if strings.Contains(line, fmt.Sprintf("provider=%q pod=%q", f.provider, pod)) {
					calls++
				}
			}
			return calls >= n, fmt.Sprintf("%d", calls), err
		})
	if err != nil {
		t.Fatal(err)
	}
}
