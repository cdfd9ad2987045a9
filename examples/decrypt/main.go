// Command decrypt shows how a program reads its secrets in-process: no volume,
// no file, the plaintext only in its own memory. It runs in a pod, takes the
// ciphertext Secret from the API server and lets Vault decrypt it, both as the
// pod's own service account.
//
// In the cluster it needs a role that may get that one Secret:
//
//	kind: Role
//	rules:
//	- {apiGroups: [""], resources: [secrets], resourceNames: [matrix-secrets], verbs: [get]}
//
// in Vault a policy and a role of the kubernetes auth method:
//
//	path "transit/decrypt/matrix" { capabilities = ["update"] }
//
//	vault write auth/kubernetes/role/matrix token_type=batch token_policies=matrix audience=vault \
//	    bound_service_account_names=matrix bound_service_account_namespaces=demo
//
// and in the pod a token for Vault's audience:
//
//	volumes:
//	- name: vault
//	  projected: {sources: [{serviceAccountToken: {audience: vault, path: token}}]}
//
// Then:
//
//	decrypt --vault-addr=https://vault:8200 --vault-role=matrix --vault-token-file=/var/run/vault/token matrix-secrets
//
// It prints the names of the entries and how long they are. What is done with
// the values is up to the program that you make of this one.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/secretmanager-io/secretmanager"
	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/transit"
)

// namespaceFile is where the kubelet tells a pod its namespace.
const namespaceFile = "/var/run/secrets/kubernetes.io/serviceaccount/namespace"

type options struct {
	namespace, secret, kubeconfig string
	vault                         transit.Config
	authMount, role, tokenFile    string
	showValues                    bool
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	o := options{vault: transit.FromEnvironment(os.Getenv)}
	flag.StringVar(&o.namespace, "namespace", "", "namespace of the Secret (default: the pod's own)")
	flag.StringVar(&o.kubeconfig, "kubeconfig", "", "kubeconfig file (default: the cluster that this runs in)")
	flag.StringVar(&o.vault.Address, "vault-addr", o.vault.Address, "URL of Vault (VAULT_ADDR)")
	flag.BoolVar(&o.vault.InsecureHTTP, "vault-insecure-http", o.vault.InsecureHTTP,
		"accept an http URL outside the loopback interface ("+transit.EnvInsecureHTTP+")")
	flag.StringVar(&o.authMount, "vault-auth-mount", "kubernetes", "path of the auth mount")
	flag.StringVar(&o.role, "vault-role", "", "role to log in as")
	flag.StringVar(&o.tokenFile, "vault-token-file", "/var/run/vault/token",
		"file of the service-account token to log in with")
	flag.BoolVar(&o.showValues, "show-values", false, "print the plaintext too, for trying out")
	flag.Parse()
	o.secret = flag.Arg(0)
	if flag.NArg() != 1 || o.role == "" {
		fmt.Fprintln(os.Stderr, "usage: decrypt --vault-role=ROLE [flags] SECRET")
		flag.PrintDefaults()
		os.Exit(2)
	}
	if err := run(ctx, o, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "decrypt:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o options, out io.Writer) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	if o.namespace == "" {
		text, err := os.ReadFile(namespaceFile)
		if err != nil {
			return fmt.Errorf("finding out the namespace: %w: outside of a pod give --namespace", err)
		}
		o.namespace = strings.TrimSpace(string(text))
	}
	vault, err := transit.NewClient(o.vault)
	if err != nil {
		return err
	}
	// Logs in when a token is first needed, and again when that one ends: a
	// program that runs for long keeps the session.
	session := vault.Session("", vault.NewLoginSource(transit.Login{
		Mount: o.authMount, Role: o.role,
		JWT: func() (string, error) {
			text, err := os.ReadFile(o.tokenFile) // anew each time: the kubelet renews it
			return strings.TrimSpace(string(text)), err
		},
	}))
	kube, err := clientset(o.kubeconfig)
	if err != nil {
		return err
	}
	values, err := secretmanager.New(session, kube).Read(ctx, o.namespace, o.secret)
	if err != nil {
		return err
	}
	var errs []error
	for _, entry := range ciphertext.Entries(values) {
		line := fmt.Sprintf("%s\t%d bytes", entry, len(values[entry]))
		if o.showValues {
			line += fmt.Sprintf("\t%q", values[entry])
		}
		_, err := fmt.Fprintln(out, line)
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func clientset(kubeconfig string) (kubernetes.Interface, error) {
	config, err := rest.InClusterConfig()
	if kubeconfig != "" {
		config, err = clientcmd.BuildConfigFromFlags("", kubeconfig)
	}
	if err != nil {
		return nil, fmt.Errorf("finding the Kubernetes API server: %w: outside of a cluster give --kubeconfig", err)
	}
	return kubernetes.NewForConfig(config)
}
