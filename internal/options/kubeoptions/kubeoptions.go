// Package kubeoptions has the flags of programs that use client-go's typed clientset. The
// provider does not, so they are not in package options.
package kubeoptions

import (
	"fmt"
	"time"

	"github.com/spf13/pflag"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/secretmanager-io/secretmanager/internal/kuberetry"
)

// Kubernetes is how a program reaches the API server.
type Kubernetes struct{ Kubeconfig string }

// AddFlags adds the flag.
func (k *Kubernetes) AddFlags(f *pflag.FlagSet) {
	f.StringVar(&k.Kubeconfig, "kubeconfig", "", "kubeconfig `file` (default: the cluster that this runs in)")
}

// Client returns a client for at most qps requests a second; 0 is client-go's default. Each request
// takes a minute at most. waiting is as for [kuberetry.Bound].
func (k *Kubernetes) Client(userAgent string, qps float32,
	waiting func(doing string, waited time.Duration)) (kubernetes.Interface, error) {
	config, err := rest.InClusterConfig()
	if k.Kubeconfig != "" {
		config, err = clientcmd.BuildConfigFromFlags("", k.Kubeconfig)
	}
	if err != nil {
		return nil, fmt.Errorf("finding the Kubernetes API server: %w: outside a cluster, set --kubeconfig", err)
	}
	config.UserAgent = userAgent
	kuberetry.Bound(config, waiting)
	if qps > 0 {
		config.QPS, config.Burst = qps, max(int(2*qps), 1)
	}
	// Lists are long, and ciphertext is neither text nor worth compressing.
	config.ContentType, config.DisableCompression = runtime.ContentTypeProtobuf, true
	kube, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("preparing the Kubernetes client: %w", err)
	}
	return kube, nil
}
