// Command barelist lists Secrets with client-go, page by page, and prints how many there are. It is the least that a
// program does which reads them, so the benchmarks compare runs without work with it.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
)

func main() {
	kubeconfig := flag.String("kubeconfig", "", "the `file` that names the cluster")
	selector := flag.String("selector", "", "a label `selector`")
	flag.Parse()
	n, err := count(context.Background(), *kubeconfig, *selector)
	if err != nil {
		fmt.Fprintln(os.Stderr, "barelist:", err)
		os.Exit(1)
	}
	fmt.Println(n)
}

func count(ctx context.Context, kubeconfig, selector string) (n int, err error) {
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return 0, err
	}
	config.QPS = -1
	config.ContentType, config.AcceptContentTypes = "application/vnd.kubernetes.protobuf",
		"application/vnd.kubernetes.protobuf"
	config.DisableCompression = true
	kube, err := kubernetes.NewForConfig(config)
	if err != nil {
		return 0, err
	}
	for opts := (metav1.ListOptions{LabelSelector: selector, Limit: 500}); ; {
		page, err := kube.CoreV1().Secrets(metav1.NamespaceAll).List(ctx, opts)
		if err != nil {
			return 0, err
		}
		n += len(page.Items)
		if opts.Continue = page.Continue; opts.Continue == "" {
			return n, nil
		}
	}
}
