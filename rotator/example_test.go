package rotator_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/secretmanager-io/secretmanager/rotator"
	"github.com/secretmanager-io/secretmanager/transit"
)

// A program in a pod makes one run.
func ExampleRun() {
	config, err := rest.InClusterConfig()
	if err != nil {
		log.Fatal(err)
	}
	kube, err := kubernetes.NewForConfig(config)
	if err != nil {
		log.Fatal(err)
	}
	vault, err := transit.NewClient(transit.FromEnvironment(os.Getenv))
	if err != nil {
		log.Fatal(err)
	}
	session := vault.Session("", vault.NewLoginSource(transit.Login{
		Mount: "kubernetes", Role: "rotator",
		JWT: func() (string, error) {
			text, err := os.ReadFile("/var/run/vault/token")
			return string(text), err
		},
	}))
	report, err := rotator.Run(context.Background(), session, kube, rotator.Options{
		Keys: []string{"matrix", "team-*=team-a,team-b"}, Retire: true, OnlyUser: true,
	})
	switch {
	case errors.Is(err, rotator.ErrRunning), errors.Is(err, rotator.ErrNotInstalled):
		log.Fatal(err) // nothing was changed
	case report == nil:
		log.Fatal(err)
	}
	for _, k := range report.Keys {
		fmt.Println(k.Name, k.Target, k.Rewrapped, k.Error)
		for _, p := range k.Unresolved.Items {
			fmt.Println(p) // location, reason and cause
		}
	}
}

func ExampleOptions_Validate() {
	fmt.Println(rotator.Options{Keys: []string{"matrix"}, MaxKeyAge: -1}.Validate())
	fmt.Println(rotator.Options{Keys: []string{"matrix"}, Rotate: rotator.Always}.Validate())
	// Output:
	// InvalidOptions: max key age -1ns is negative
	// <nil>
}

// A dashboard reads what the last runs left in the ConfigMaps StateNames.
func ExampleReadSummary() {
	stored := &corev1.ConfigMap{Data: map[string]string{
		"run": `{"result": "done", "finished": "2026-01-02T03:04:05Z"}`,
		"transit__matrix_report": `{"mount": "transit", "name": "matrix", "target": 3, "minDecryption": 2,
			"versions": {"3": 12}, "finished": "2026-01-02T03:04:05Z"}`,
	}}
	summary, err := rotator.ReadSummary(stored)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(summary.Result)
	for _, k := range summary.Keys {
		fmt.Println(k.Name, k.Target, k.OldestDecryptable(), k.Counted())
	}
	// Output:
	// done
	// matrix 3 2 true
}

func ExampleReport_Complete() {
	report := rotator.Report{Keys: []*rotator.KeyReport{{Name: "matrix", Unresolved: rotator.Problems{Count: 1}}}}
	fmt.Println(report.Complete())
	// Output:
	// false
}

func ExampleProblem_String() {
	fmt.Println(rotator.Problem{
		Location: rotator.Location{Namespace: "demo", Name: "matrix", Entry: "password"},
		Reason:   "SecretImmutable: has key version 1 instead of 2: it is immutable",
	})
	// Output:
	// demo/matrix/password: SecretImmutable: has key version 1 instead of 2: it is immutable
}

func ExampleLocation_String() {
	fmt.Println(rotator.Location{Namespace: "demo", Name: "matrix"})
	fmt.Println(rotator.Location{})
	// Output:
	// demo/matrix
	// (all namespaces)
}
