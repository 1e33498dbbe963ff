print("mingle-vmm")
