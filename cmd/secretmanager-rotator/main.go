// Command secretmanager-rotator makes one run of the rotator and ends: it is
// what the CronJob starts.
//
// The log goes to the standard error stream. The last thing it does is to write
// the report, a line of JSON, to the standard output stream. The exit code is 0
// when everything is at its target, 1 when something is left or failed, or when
// another run is at it, and 2 when it was not called properly.
//
// With the argument export it makes no run: it serves what the last ones left
// behind to Prometheus until it is stopped; see package exporter.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/pflag"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"

	"github.com/secretmanager-io/secretmanager/internal/version"
	"github.com/secretmanager-io/secretmanager/rotator"
	"github.com/secretmanager-io/secretmanager/transit"
)

const (
	exitDone  = 0
	exitLeft  = 1
	exitUsage = 2
)

// retryVault is how long a request is repeated that Vault cannot answer for now:
// a restart of it should not end the night's run, an outage should.
const retryVault = time.Minute

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Getenv, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

func run(ctx context.Context, args []string, getenv func(string) string, stdout, stderr io.Writer) int {
	if len(args) > 0 && args[0] == exportVerb {
		return export(ctx, args[1:], stderr)
	}
	o, err := parse(args, getenv, stderr)
	if errors.Is(err, pflag.ErrHelp) {
		return exitDone
	}
	if errors.Is(err, errVersion) {
		fmt.Fprintln(stdout, version.Line("secretmanager-rotator"))
		return exitDone
	}
	if err != nil {
		fmt.Fprintf(stderr, "secretmanager-rotator: %s\nsee secretmanager-rotator --help\n", err)
		return exitUsage
	}
	log := o.logger(stderr)
	o.Log = log
	klog.SetSlogLogger(log)
	log.Info("secretmanager-rotator", "version", version.Number())
	report, err := rotate(ctx, o)
	if report != nil {
		// A report has nothing that JSON could not hold; the stream may be closed.
		if err := json.NewEncoder(stdout).Encode(report); err != nil {
			log.Error("writing the report", "error", err)
		}
	}
	if err != nil {
		log.Error("the run is not complete", "error", err)
		return exitLeft
	}
	return exitDone
}

func rotate(ctx context.Context, o *options) (*rotator.Report, error) {
	client, err := transit.NewClient(o.vault)
	if err != nil {
		return nil, err
	}
	if transit.PlainHTTP(o.vault.Address) {
		o.Log.Warn("requests to Vault are not encrypted: everyone on the network can read their tokens", "address", o.vault.Address)
	}
	kube, err := o.clientset()
	if err != nil {
		return nil, err
	}
	return rotator.Run(ctx, client.Session(o.vaultNamespace, o.tokens(client)), kube, o.Options)
}

// tokens says who the rotator is in Vault.
func (o *options) tokens(client *transit.Client) transit.TokenSource {
	if o.role == "" {
		return transit.StaticToken(o.token)
	}
	return client.NewLoginSource(transit.Login{
		Namespace: o.vaultNamespace, Mount: o.authMount, Role: o.role,
		JWT: func() (string, error) {
			text, err := os.ReadFile(o.tokenFile)
			if err != nil {
				return "", fmt.Errorf("reading the token to log in to Vault with: %w: check --vault-token-file and the projected volume it comes from", err)
			}
			return strings.TrimSpace(string(text)), nil
		},
	})
}

func (o *options) clientset() (kubernetes.Interface, error) {
	config, err := kubeConfig(o.kubeconfig)
	if err != nil {
		return nil, err
	}
	config.QPS, config.Burst = o.kubeQPS, max(int(2*o.kubeQPS), 1)
	// Lists are long, and ciphertext is neither text nor worth compressing.
	config.ContentType = runtime.ContentTypeProtobuf
	config.DisableCompression = true
	return newClientset(config)
}

// kubeConfig says where the API server is: in the file, or around this pod.
func kubeConfig(file string) (*rest.Config, error) {
	config, err := rest.InClusterConfig()
	if file != "" {
		config, err = clientcmd.BuildConfigFromFlags("", file)
	}
	if err != nil {
		return nil, fmt.Errorf("finding the Kubernetes API server: %w: outside of a cluster give --kubeconfig", err)
	}
	return config, nil
}

func newClientset(config *rest.Config) (kubernetes.Interface, error) {
	config.UserAgent = "secretmanager-rotator"
	kube, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("preparing the Kubernetes client: %w", err)
	}
	return kube, nil
}
