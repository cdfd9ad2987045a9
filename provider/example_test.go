package provider_test

import (
	"context"
	"fmt"
	"log"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"k8s.io/client-go/rest"

	"github.com/secretmanager-io/secretmanager/provider"
	"github.com/secretmanager-io/secretmanager/transit"
)

const exampleSocket = "/var/run/secrets-store-csi-providers/secretmanager.sock"

// A provider whose ciphertext comes from the kubelet or, as the pod, from the API server.
func ExampleNew() {
	key, err := provider.VersionKey("/var/lib/secretmanager/version-key")
	if err != nil {
		log.Fatal(err)
	}
	config := provider.Config{
		Vault:      transit.FromEnvironment(os.Getenv),
		Audience:   provider.DefaultAudience,
		VersionKey: key,
	}
	if kube := provider.InCluster(os.Getenv); kube != nil {
		if config.SecretReader, err = provider.NewSecretReader(kube); err != nil {
			log.Fatal(err)
		}
	}
	p, err := provider.New(config)
	if err != nil {
		log.Fatal(err)
	}
	http.Handle("GET /metrics", p.Metrics())
}

// A program serves the driver until it is stopped, and responds to the probes of the kubelet.
func ExampleListen() {
	var p *provider.Provider // of New
	server, err := provider.Listen(exampleSocket, p)
	if err != nil {
		log.Fatal(err)
	}
	go http.ListenAndServe("127.0.0.1:8080", provider.Health(exampleSocket, server.Ready))
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	if err := server.Serve(ctx); err != nil { // finishes the mounts in progress
		log.Fatal(err)
	}
}

func ExampleNew_invalid() {
	_, err := provider.New(provider.Config{Vault: transit.Config{Address: "https://vault.example:8200"}})
	fmt.Println(err)
	// Output:
	// the version key has 0 bytes, fewer than 32
}

func ExampleNewSecretReader() {
	_, err := provider.NewSecretReader(&rest.Config{Host: "https://kubernetes.example:6443"})
	fmt.Println(err)
	// Output:
	// <nil>
}

func ExampleInCluster() {
	environment := map[string]string{"KUBERNETES_SERVICE_HOST": "10.96.0.1", "KUBERNETES_SERVICE_PORT": "443"}
	fmt.Println(provider.InCluster(func(name string) string { return environment[name] }).Host)
	fmt.Println(provider.InCluster(func(string) string { return "" }) == nil)
	// Output:
	// https://10.96.0.1:443
	// true
}

// For a provider that runs outside of a cluster.
func ExampleFromKubeconfig() {
	config, err := provider.FromKubeconfig("/home/neo/.kube/config")
	if err != nil {
		log.Fatal(err)
	}
	if _, err := provider.NewSecretReader(config); err != nil {
		log.Fatal(err)
	}
}

func ExampleVersionKey() {
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	key, err := provider.VersionKey(filepath.Join(dir, "version-key"))
	fmt.Println(len(key), err)
	// Output:
	// 32 <nil>
}

func ExampleHealth() {
	var server *provider.Server // of Listen
	http.Handle("/", provider.Health(exampleSocket, func() bool { return server.Ready() }))
}
