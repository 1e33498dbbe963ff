// hold: keeps one virtual machine with one vCPU open for as long as the lab runs.
//
// Kernel code that asks "does any VM exist?" is switched by static keys, which rewrite kernel text when the number of
// VMs goes from none to one and back. Under QEMU's multi-threaded emulation another CPU can go on running the old
// translation of that text, and the lab's kernel hangs. With one VM always there, nothing is rewritten.
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <unistd.h>

int main(void) {
    int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    if (kvm < 0) return perror("hold: /dev/kvm"), 1;
    int vm = ioctl(kvm, KVM_CREATE_VM, 0);
    if (vm < 0) return perror("hold: KVM_CREATE_VM"), 1;
    // The interrupt controller's key is switched by the first vCPU that has one.
    if (ioctl(vm, KVM_SET_TSS_ADDR, 0xfffbd000UL) < 0 || ioctl(vm, KVM_CREATE_IRQCHIP, 0) < 0
        || ioctl(vm, KVM_CREATE_VCPU, 0) < 0)
        return perror("hold: cannot make the machine"), 1;
    pid_t child = fork();
    if (child < 0) return perror("hold: fork"), 1;
    if (child > 0) return 0; // everything is ready once the parent returns
    setsid();
    for (;;) pause();
}
